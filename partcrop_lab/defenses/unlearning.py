"""Unlearning: an encoder is made to forget some of its training images, by alignment calibration (METHODS 6).

An encoder that compares views maps those of its training images closer together than those of others, which is what
attacks find. Here it goes on learning from the images it keeps, while the alignments of those to be forgotten are drawn
to what they are for images it has never seen. Whether it has forgotten is judged beside an encoder that was trained
without them from the start, never against itself (`judge`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from partcrop_lab.attacks import Attack
from partcrop_lab.audit import audit
from partcrop_lab.defenses.base import card_of
from partcrop_lab.devices import generator
from partcrop_lab.encoders import Encoder
from partcrop_lab.encoders.recipes import Objective, make_recipe
from partcrop_lab.encoders.recipes.base import full_precision, pooled
from partcrop_lab.encoders.recipes.siamese import TwoViewObjective
from partcrop_lab.encoders.training import rate, served_parts
from partcrop_lab.encoders.utility import halves, judged
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet, member_split
from partcrop_lab.progress import bar

WARMUP = 0.1
"""Share of the steps in which the learning rate rises."""
RETRAINED = "trained without"
"""What the yardstick is called in the table of `judge`."""


@dataclass(frozen=True)
class Unlearning:
    """Settings of alignment calibration.

    Attributes:
        epochs: passes over the images that are kept, at least 1.
        lr: peak learning rate, above 0.
        weight: of the calibration beside the recipe's own loss, at least 0; 0 is to train on without the others.
        seed: of views and orders.

    Raises:
        ValueError: a value out of range.
    """

    epochs: int = 30
    lr: float = 5e-4
    weight: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0 or not self.weight >= 0:
            raise ValueError(
                f"epochs is {self.epochs}, lr {self.lr:g}, weight {self.weight:g}; unlearning needs at least one epoch,"
                " an lr above 0 and a weight of at least 0"
            )

    def fit(self, encoder: Encoder, forget: ImageSet, unseen: ImageSet, progress: bool = True) -> Encoder:
        """An encoder that has forgotten some of its training images.

        The alignments, cosines of two views' projections, of a batch of images to be forgotten and of one of unseen
        images are sorted, and the mean square of their differences is added to the recipe's loss.

        Args:
            encoder: of a recipe with two views and a projector (SimCLR, Barlow Twins, VICReg), with its projector
                (``pretrain(projector=True)``), its card and its split.
            forget: some of its members, not all.
            unseen: images of the same kind that are in neither side of its split; at least two.
            progress: show a bar.

        Raises:
            BadInput: an encoder of which this cannot be asked, or images of the wrong side.
        """
        objective, kept = _objective(encoder), retained(encoder, forget)
        _check_unseen(encoder, unseen)
        recipe = objective.recipe
        optimizer = torch.optim.AdamW(objective.parameters(), lr=self.lr, weight_decay=recipe.weight_decay)
        objective.to(encoder.device).train()
        for module in objective.modules():  # else its means are of kept and of unseen images by turns, and fit neither
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        size = min(recipe.batch_size, len(forget), len(unseen))
        losses: list[float] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # for drop path
            for epoch in bar(range(self.epochs), "unlearn", unit="epoch", shown=progress):
                source = generator("unlearn", self.seed, epoch)
                batches = _batches(kept, recipe.batch_size, source)
                for number, images in enumerate(batches):
                    done = (epoch + (number + 0.5) / len(batches)) / self.epochs
                    for group in optimizer.param_groups:
                        group["lr"] = self.lr * rate(done, WARMUP)
                    others = [one.batch(torch.randperm(len(one), generator=source)[:size]) for one in (forget, unseen)]
                    loss = objective(images.to(encoder.device), source)
                    loss = loss + self.weight * _calibration(objective, *(x.to(encoder.device) for x in others), source)
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(objective.parameters(), recipe.clip)
                    optimizer.step()
                    losses.append(float(loss.detach()))
        if not np.isfinite(losses).all():
            raise BadInput(f"the loss of unlearning is no longer finite; lower lr= (it is {self.lr:g}) or weight=")
        return self._result(encoder, objective, forget)

    def _result(self, encoder: Encoder, objective: TwoViewObjective, forget: ImageSet) -> Encoder:
        model, head = served_parts(objective, projector=True)
        card = encoder.card | {"unlearned": {**asdict(self), "images": len(forget), "digest": forget.digest}}
        name = f"{encoder.name}, {len(forget)} unlearned"
        return encoder.like(model, name=name, architecture=encoder.architecture, card=card, projector=head)


def _objective(encoder: Encoder) -> TwoViewObjective:
    """The objective that an encoder was trained with, at the encoder's weights."""
    card = card_of(encoder, "so it cannot be trained on to forget")
    objective = make_recipe(card["recipe"], **card["settings"]).objective(encoder.image_size, 0)
    if not isinstance(objective, TwoViewObjective):
        raise BadInput(
            f"encoder {encoder.name} was trained by {card['recipe']}; alignment calibration needs a recipe "
            "that compares two views through a projector: simclr, barlowtwins or vicreg"
        )
    if encoder.projector is None:
        raise BadInput(f"encoder {encoder.name} carries no projector; train it with projector=True (--projector)")
    objective.backbone.load_state_dict(encoder._model.state_dict())
    objective.projector.load_state_dict(encoder.projector.state_dict())
    return objective


def retained(encoder: Encoder, forget: ImageSet) -> ImageSet:
    """The members of an encoder's split without those to be forgotten.

    Raises:
        BadInput: no image, images that are no members, or all of them.
    """
    members, gone = encoder.split.members, set(forget.hashes)
    strangers = len(gone - set(members.hashes))
    if strangers or not gone:
        found = f"{strangers} of the {len(gone)} images to forget are no members" if gone else "no image to forget"
        raise BadInput(f"{found}; name some of the members of the split of {encoder.name}")
    rows = [row for row, pixels in enumerate(members.hashes) if pixels not in gone]
    if len(rows) < 2:
        raise BadInput(f"all {len(members)} members are to be forgotten; then train no encoder at all")
    return members.subset(rows)


def some_members(encoder: Encoder, count: int, seed: int) -> ImageSet:
    """So many members of an encoder's split, drawn by a seed, in the split's order; all where it has no more."""
    members = encoder.split.members
    return members.subset(np.sort(np.random.default_rng(seed).permutation(len(members))[:count]))


def _check_unseen(encoder: Encoder, unseen: ImageSet) -> None:
    shared = len(set(unseen.hashes) & set(encoder.split.images.hashes))
    if shared:
        raise BadInput(f"{shared} of the unseen images are in the split of {encoder.name}; take images of neither side")
    if len(unseen) < 2 or unseen.size != encoder.image_size:
        raise BadInput(f"unseen holds {unseen}; at least two images of {encoder.image_size} px are needed")


def _batches(images: ImageSet, size: int, source: torch.Generator) -> list[Tensor]:
    """All images once, in batches of equal size."""
    order = torch.randperm(len(images), generator=source)
    return [images.batch(rows) for rows in order.tensor_split(-(-len(images) // size))]


def _calibration(objective: TwoViewObjective, forget: Tensor, unseen: Tensor, source: torch.Generator) -> Tensor:
    """The mean squared difference of the sorted alignments of both (n, 3, S, S); gradients reach `forget` alone."""
    mine, others = alignments(objective, torch.cat([forget, unseen]), source).chunk(2)
    return (mine.sort().values - others.detach().sort().values).square().mean()


def alignments(objective: Objective, images: Tensor, source: torch.Generator) -> Tensor:
    """How close the projections of two views of each image are: cosines (n,)."""
    projections = objective.projector(pooled(objective.backbone, objective.crops(images, source))).float()
    with full_precision(projections):
        return cosine_similarity(*projections.chunk(2))


def judge(
    encoders: Mapping[str, Encoder],
    forget: ImageSet,
    nonmembers: ImageSet,
    attack: Attack,
    labelled: ImageSet,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """What is left of the images to be forgotten in each encoder, and what each is still good for.

    Args:
        encoders: by name; one of them, "trained without", is the yardstick: trained by the same recipe on the members
            that are kept, from the start.
        forget: the images.
        nonmembers: images that no encoder has seen, `unseen` of `Unlearning.fit` included.
        attack: that tells them apart, with its own attacker.
        labelled: images with classes; the first half trains the probes, the second tests them.
        seed: of the audits.
        progress: show bars.

    Returns:
        A row for each encoder: encoder, images (to be forgotten), nonmembers, attack, queries, auc with low and high
        (95 %), p_value, p_untrained, p_pixels; gain, gain_low, gain_high: its AUC minus the yardstick's, on the same
        images and folds; probe, knn.

    Raises:
        ValueError: no yardstick.
    """
    if RETRAINED not in encoders:
        raise ValueError(f"unlearning is judged beside an encoder trained without the images; name one {RETRAINED!r}")
    split = member_split(forget, nonmembers)
    sides = halves(labelled)
    how = {"seed": seed, "permutations": 0, "progress": progress}
    results = {name: audit(encoder, split, attack, **how) for name, encoder in encoders.items()}
    rows = []
    for name, result in results.items():
        auc, beside = result.metrics.loc["auc"], result.minus(results[RETRAINED])
        right, near = judged(encoders[name], *sides)
        rows.append(
            {
                "encoder": name,
                "images": len(split.members),
                "nonmembers": len(split.nonmembers),
                "attack": attack.label,
                "queries": attack.queries,
                "auc": auc.value,
                "low": auc.low,
                "high": auc.high,
                "p_value": result.p_value,
                **{f"p_{control}": p for control, p in result.controls.p_value.dropna().items()},
                **{"gain": beside.gain, "gain_low": beside.low, "gain_high": beside.high},
                "probe": float(right.mean()),
                "knn": near,
            }
        )
    return pd.DataFrame(rows)
