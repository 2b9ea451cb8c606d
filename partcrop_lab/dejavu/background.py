"""One background at a time: what each of two models makes of it, for looking at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from partcrop_lab.dejavu.neighbours import PublicIndex, confidence
from partcrop_lab.dejavu.score import PROJECTOR, at_layer, public_index
from partcrop_lab.encoders import Encoder
from partcrop_lab.errors import BadInput
from partcrop_lab.images import Box, ImageSet
from partcrop_lab.images.resample import crop_resize


@dataclass(frozen=True)
class Inference:
    """What one model infers from one background.

    Attributes:
        neighbours: (k,) int64, rows of the public images, nearest first.
        votes: (classes,) float32, their share for each class, summing to 1.
    """

    neighbours: Tensor
    votes: Tensor

    @property
    def guess(self) -> int:
        """The class with most votes, of equal ones the first."""
        return int(self.votes.argmax())

    @property
    def sure(self) -> float:
        """Minus the entropy of the votes in nats, at most 0."""
        return float(confidence(self.votes))


class Backgrounds:
    """Models and public images, embedded once, to be asked about one background after another.

    Args:
        encoders: by name, as "A" and "B".
        public: images with labels that none of them was trained on.
        layer: after which embeddings are taken, as for `deja_vu`.
        k: neighbours that vote.

    Raises:
        ValueError: an unknown layer, or more neighbours than public images.
        BadInput: public images without labels.
    """

    def __init__(
        self, encoders: Mapping[str, Encoder], public: ImageSet, layer: str | int = PROJECTOR, k: int = 100
    ) -> None:
        self.encoders, self.public, self.layer, self.k = dict(encoders), public, layer, k
        self._asked = {name: at_layer(encoder.singly(), layer) for name, encoder in encoders.items()}
        self._index: dict[str, PublicIndex] = {
            name: public_index(encoder, layer, public, public.labels) for name, encoder in encoders.items()
        }
        for index in self._index.values():
            index.check(k)

    def infer(self, image: Tensor, box: Box) -> dict[str, Inference]:
        """What each model infers from a box of an image (3, S, S) uint8; by its name.

        Raises:
            BadInput: a box that is empty or leaves the image.
        """
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= image.shape[-1] and 0 <= y0 < y1 <= image.shape[-2]):
            raise BadInput(f"the box {tuple(box)} is empty or leaves the image of {image.shape[-1]} px")
        found = {}
        for name, encoder in self.encoders.items():
            crop = crop_resize(image[None], torch.tensor([[list(box)]]), encoder.image_size)[:, 0]
            rows = self._index[name].search(self._asked[name](crop), self.k)
            found[name] = Inference(rows[0], self._index[name].tally(rows)[0])
        return found

    def embeddings(self, name: str) -> Tensor:
        """What a model makes of the public images, (m, E) float32."""
        return torch.as_tensor(self._index[name].embeddings)

    def votes_table(self, inferred: Mapping[str, Inference]) -> pd.DataFrame:
        """The votes as a table: columns model, label (class number), class and votes."""
        names = self.public.classes
        rows = [
            (model, label, names[label] if names else str(label), float(votes))
            for model, one in inferred.items()
            for label, votes in enumerate(one.votes)
        ]
        return pd.DataFrame(rows, columns=["model", "label", "class", "votes"])
