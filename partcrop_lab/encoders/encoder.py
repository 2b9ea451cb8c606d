"""An encoder as the attacks see it: images in, feature maps and vectors out, always the same for the same image."""

from __future__ import annotations

import copy
import json
import math
import uuid
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from partcrop_lab import store
from partcrop_lab.devices import default_device, fresh_weights, resolve_precision
from partcrop_lab.encoders.backbone import Architecture, Tokens, called_tokens, explicit_attention, grid, timm_tokens
from partcrop_lab.encoders.checkpoint import METADATA, halved, in_order, write_weights
from partcrop_lab.encoders.recipes import MaskedObjective, make_recipe
from partcrop_lab.errors import BadInput
from partcrop_lab.images import MembershipSplit
from partcrop_lab.images.resample import as_floats, resize
from partcrop_lab.schemas import Header, checked

POOLINGS = ("cls", "mean")
BUDGET = {"cpu": 2**18}
"""Activations (positions x width) forwarded together: what fits the cache of a core."""
GPU_BUDGET = 2**24
LEAST_POSITIONS = 4
"""Of a feature map over which a part response can be drawn."""
WEIGHTS_KEPT_IN = "torch.float32"
"""The weights' own type, whatever they are run in; a part of every digest since the first cards."""
PROJECTOR, DECODER = "projector.", "decoder."
"""What the names of the tensors of a projector and of a decoder begin with in a file."""


class Encoder:
    """A frozen backbone with its own preprocessing; in eval mode, deterministic, independent of the batch.

    The last bits of a matrix product depend on how many rows it has. So images are forwarded in micro-batches of
    one fixed size for each image side, the last filled up by repeating an image: every row is computed at the same
    shape, and a feature is the same whatever else is in the batch.

    Args:
        model: a timm model, or a callable that takes (B, 3, S, S) float32 (see `called_tokens`).
        name: what reports call it.
        image_size: side in pixels to which whole images are resized (bicubic, antialiased).
        mean, std: of the normalisation, per RGB channel, for pixels in [0, 1].
        pooling: default of `vectors`, "cls" or "mean"; None: CLS where there is one, except in masked-image models.
        precision: "fp32", "bf16", or "auto", which is fp32 (see `resolve_precision`). Callables get float32.
        device: where it runs; None: the best there is, for callables the CPU.
        architecture: how the timm model is built again; None for a callable.
        card: what is known of the training: recipe, split, epochs, seeds.
        patch: pixels between neighbouring positions; found by a forward pass where None.
        digest: of a callable, whose inside the cache cannot see; where None its features are never reused.
        untrained: factory(seed) of the same callable with fresh weights, for the random-encoder control.
        micro_batch: images forwarded together; by image side where None.
        projector: the head (n, D) -> (n, E) between its vectors and the loss it was trained by, see `projections`.
        decoder: what a masked-image model was trained as, the backbone in it, see `masked_losses`.
        view_side: side in pixels of the views that it was trained on, at which attacks send their crops; where None,
            the card's `view_size` of the image's side, or the image's where the card has none.

    Raises:
        ValueError: an unknown pooling or precision, or a side below 1.

    >>> encoder = Encoder(lambda x: x.flatten(2).transpose(1, 2), name="pixels", image_size=4)
    >>> encoder.feature_map(torch.zeros(2, 3, 4, 4)).shape, encoder.vectors(torch.zeros(2, 3, 4, 4)).shape
    (torch.Size([2, 16, 3]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Any],
        *,
        name: str,
        image_size: int,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        pooling: str | None = None,
        precision: str = "auto",
        device: str | torch.device | None = None,
        architecture: Architecture | None = None,
        card: dict[str, Any] | None = None,
        patch: int | None = None,
        digest: str | None = None,
        untrained: Callable[[int], Callable[[Tensor], Any]] | None = None,
        micro_batch: int | None = None,
        projector: nn.Module | None = None,
        decoder: MaskedObjective | None = None,
        view_side: int | None = None,
    ) -> None:
        self.name = name
        self.image_size = int(image_size)
        self.mean, self.std = _three("mean", mean), _three("std", std)
        self.card = dict(card or {})
        self._asked_view_side = _side(view_side)
        self.architecture = architecture
        self.untrained_note = "the same architecture with fresh weights"
        is_timm = hasattr(model, "forward_features")
        self.device = torch.device(device) if device else default_device() if is_timm else torch.device("cpu")
        self.dtype = resolve_precision(precision) if is_timm else torch.float32
        self._model, self._factory, self._asked_pooling = model, untrained, _pooling(pooling)
        self._asked_patch, self._asked_digest, self._asked_micro_batch = patch, digest, micro_batch
        if isinstance(model, nn.Module):
            self._model = model.eval().requires_grad_(False)
        frozen = lambda head: None if head is None else head.eval().requires_grad_(False).to(self.device)  # noqa: E731
        self.projector, self.decoder = frozen(projector), frozen(decoder)
        self._forward = partial(timm_tokens, self._deployed()) if is_timm else partial(called_tokens, self._model)
        channels = {"dtype": torch.float32, "device": self.device}
        mean, std = (torch.tensor(values, **channels).view(3, 1, 1) for values in (self.mean, self.std))
        self._shift, self._scale = -mean / std, 1 / std

    def __repr__(self) -> str:
        return f"Encoder({self.name}, {self.image_size} px, {str(self.dtype).removeprefix('torch.')}, {self.device})"

    def _deployed(self) -> nn.Module:
        """The model on its device and in its precision; the fp32 weights stay as they are, for digest and saving."""
        if self.dtype == torch.float32 and self.device.type == "cpu":
            return self._model
        deployed = copy.deepcopy(self._model).to(self.device, self.dtype)
        return explicit_attention(deployed) if self.device.type == "cpu" else deployed

    def tokens(self, images: Tensor, resize: bool = True) -> Tokens:
        """Feature map (B, L, D) and CLS vector (B, D), None without one, from one forward pass.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1].
            resize: whole images, brought to `image_size` where their side differs; else parts, at their own side as
                in `vectors`.

        Raises:
            BadInput: images of another form, or features that are not finite.
        """
        if not self.has_cls:
            return self._stream(images, lambda fmap, _: fmap, resize), None
        joined = self._stream(images, lambda fmap, cls: torch.cat([fmap, cls[:, None]], 1), resize)
        return joined[:, :-1], joined[:, -1]

    def feature_map(self, images: Tensor) -> Tensor:
        """The feature map (B, L, D) float32 of whole images, positions row by row (METHODS 1).

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1]; resized to `image_size` where their side differs.

        Raises:
            BadInput: as `tokens`, or a map of fewer than `LEAST_POSITIONS`, over which no part response can be drawn.
        """
        features = self._stream(images, lambda fmap, cls: fmap, True)
        if features.shape[1] < LEAST_POSITIONS:
            raise BadInput(
                f"encoder {self.name} gives a feature map of {features.shape[1]} positions at {self.image_size} px; "
                f"part responses need at least {LEAST_POSITIONS}, so use larger images (image_size=) or a backbone of "
                "smaller stride"
            )
        return features

    def vectors(self, images: Tensor, pooling: str | None = None) -> Tensor:
        """One vector (B, D) float32 for each image or part.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1], at their own side: position embeddings are interpolated.
                Only a side that is no multiple of `patch` is resized, to the next larger multiple.
            pooling: "cls" (CLS token) or "mean" (mean of the feature map); the encoder's own where None.

        Raises:
            ValueError: CLS of an encoder that has none.
            BadInput: as `tokens`.
        """
        pooling = _pooling(pooling) or self.pooling
        if pooling == "cls" and not self.has_cls:
            raise ValueError(f"encoder {self.name} has no CLS token; its pooling must be 'mean'")
        return self._stream(
            images, lambda fmap, cls: cls if pooling == "cls" else fmap.mean(1, dtype=torch.float32), False
        )

    def projections(self, images: Tensor) -> Tensor:
        """What the projector makes of the images' vectors, as the loss saw them in training: (B, E) float32.

        Args:
            images: (B, 3, H, W), as for `vectors`.

        Raises:
            BadInput: as `tokens`, or an encoder that was saved without its projector.
        """
        projector = self._own_projector()
        pooled = lambda fmap, cls: fmap.float().mean(1) if cls is None else cls.float()  # noqa: E731
        return self._stream(images, lambda fmap, cls: projector(pooled(fmap, cls)), False)

    def _own_projector(self) -> nn.Module:
        if self.projector is None:
            raise BadInput(f"encoder {self.name} has no projector; train it with pretrain(projector=True)")
        return self.projector

    def masked_losses(self, images: Tensor, sources: Sequence[torch.Generator], masks: int) -> Tensor:
        """What a masked-image model fails to guess of hidden patches, by its training loss: (B, masks) float32.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1]; resized to the side of its views in training.
            sources: one generator on the CPU for each image, that draws its masks.
            masks: how many for each.

        Raises:
            BadInput: as `tokens`, or an encoder that was saved without its decoder.
        """
        if self.decoder is None:
            raise BadInput(
                f"encoder {self.name} has no decoder; train a masked-image model with pretrain(decoder=True)"
            )
        _check_images(images)
        pixels, losses = self._prepare(images, self.decoder.view_side).float(), []
        with torch.no_grad():
            for view, source in zip(pixels, sources, strict=True):  # one at a time: each is computed at the same shape
                drawn = self.decoder.draw_masks(masks, source)
                losses.append(self.decoder.losses(view.expand(masks, -1, -1, -1), drawn))
        found = torch.stack(losses)
        self._check_finite(found)
        return found

    def _stream(self, images: Tensor, head: Callable[[Tensor, Tensor | None], Tensor], whole: bool) -> Tensor:
        """Forward `images` in micro-batches of a fixed shape and keep what `head` makes of the tokens."""
        _check_images(images)
        side = self.image_size if whole else math.ceil(images.shape[-1] / self.patch) * self.patch
        step, rows = self.micro_batch(side), []
        with torch.no_grad():
            for start in range(0, len(images), step):
                batch = self._prepare(images[start : start + step], side)
                rows.append(head(*self._forward(_filled(batch, step)))[: len(batch)].float())
        features = torch.cat(rows)
        self._check_finite(features)
        return features

    def _prepare(self, images: Tensor, side: int) -> Tensor:
        pixels = as_floats(images.to(self.device))
        if pixels.shape[-2:] != (side, side):
            pixels = resize(pixels, side)
        return torch.addcmul(self._shift, pixels, self._scale).to(self.dtype)

    def _check_finite(self, features: Tensor) -> None:
        if not torch.isfinite(features).all():
            bad = int((~torch.isfinite(features)).flatten(1).any(1).sum())
            raise BadInput(
                f"encoder {self.name} gives NaN or infinite features for {bad} of {len(features)} images; "
                "check its weights, and its mean= and std="
            )

    @cached_property
    def _probe(self) -> tuple[int, int, bool]:
        """Positions, width and whether there is a CLS token, by one forward pass of a grey image."""
        grey = torch.zeros(1, 3, self.image_size, self.image_size, device=self.device, dtype=self.dtype)
        with torch.no_grad():
            fmap, cls = self._forward(grey)
        return fmap.shape[1], fmap.shape[2], cls is not None

    @property
    def width(self) -> int:
        """Feature width D."""
        return self._probe[1]

    @property
    def has_cls(self) -> bool:
        """Whether the backbone has a CLS token."""
        return self._probe[2]

    @property
    def map_shape(self) -> tuple[int, int]:
        """The (h, w) of the feature map at `image_size`."""
        return grid(self._probe[0])

    @cached_property
    def patch(self) -> int:
        """Pixels between neighbouring positions: the patch of a ViT, the total stride of a ConvNet."""
        return self._asked_patch or math.ceil(self.image_size / self.map_shape[1])

    @property
    def pooling(self) -> str:
        """The default pooling of `vectors` (METHODS 1)."""
        masked = self.card.get("recipe") in ("mae", "simmim", "cae")
        return self._asked_pooling or ("cls" if self.has_cls and not masked else "mean")

    @cached_property
    def part_size(self) -> int:
        """Side in pixels of a part (METHODS 1).

        Half the image up to 32 px, a quarter from 64 px, 16 px between them; rounded up to a multiple of the patch and
        at least 2 x 2 positions. ConvNets and hierarchical backbones: the least multiple of their total stride, from
        that size on, at which they work; one position will do, since their vectors are means.
        """
        side, step = self.image_size, self.patch
        wanted = side / 2 if side <= 32 else max(16, side / 4)
        least = 2 if self.is_vit else 1
        sizes = range(max(least, math.ceil(wanted / step)) * step, side, step)
        return next((size for size in sizes if self._works(size)), side)

    @cached_property
    def view_side(self) -> int:
        """Side in pixels of the views that it was trained on: as asked, as the card says, or the image's."""
        if self._asked_view_side or self.architecture is None:
            return self._asked_view_side or self.image_size
        return self.architecture.side(self.card.get("settings", {}).get("view_size", 1.0))

    def _works(self, side: int) -> bool:
        grey = torch.zeros(1, 3, side, side, device=self.device, dtype=self.dtype)
        try:
            with torch.no_grad():
                return self._forward(grey)[0].shape[1] >= 1
        except (RuntimeError, ValueError, AssertionError):  # how backbones refuse a side
            return False

    @property
    def is_vit(self) -> bool:
        """Whether the backbone is a ViT, cut into patches once."""
        return hasattr(self._model, "patch_embed") and hasattr(self._model, "blocks")

    @property
    def depth(self) -> int:
        """Blocks of a ViT; 0 of another backbone."""
        return len(self._model.blocks) if self.is_vit else 0

    @property
    def parameters(self) -> int | None:
        """Number of the backbone's weights; None of an encoder that can only be asked."""
        return sum(one.numel() for one in self._model.parameters()) if isinstance(self._model, nn.Module) else None

    def micro_batch(self, side: int) -> int:
        """Images forwarded together at this side in pixels, a power of two: decided by cost alone, not by timing."""
        if self._asked_micro_batch:
            return self._asked_micro_batch
        if not isinstance(self._model, nn.Module):
            return 32
        cost = ((side // self.patch) ** 2 + 1) * self.width if self.is_vit else 4 * side * side
        return 1 << max(1, BUDGET.get(self.device.type, GPU_BUDGET) // cost).bit_length() - 1

    def singly(self) -> Encoder:
        """The same encoder, asked one image at a time: one answer comes sooner, since no batch is filled up for it."""
        one = copy.copy(self)
        one._asked_micro_batch = 1
        return one

    @cached_property
    def digest(self) -> str:
        """A sha256 of what the encoder is: weights, architecture, preprocessing, side of views, pooling.

        It is the same on every machine; how an encoder is run there is `run`'s matter.
        """
        how = [self.image_size, self.mean, self.std, WEIGHTS_KEPT_IN]
        if self.view_side != self.image_size:  # where attacks ask it at another side
            how.append(self.view_side)
        if self.architecture is None:  # whether it has a CLS token is not known before it is asked
            if self._asked_pooling is not None:
                how.append(self._asked_pooling)
            return store.digest(self._asked_digest or uuid.uuid4().hex, how)
        if self.pooling != ("cls" if self.has_cls else "mean"):  # another than the weights alone would have
            how.append(self.pooling)
        arrays = in_order(self._model.state_dict())
        if self.decoder is not None:
            arrays += in_order(self.decoder.surroundings())
        return store.digest(self.architecture.json, how, *arrays)

    @property
    def run(self) -> dict[str, Any]:
        """How it is run, which decides the last bits of its features: precision, kind of device, what is unusual."""
        how: dict[str, Any] = {"precision": "bf16" if self.dtype == torch.bfloat16 else "fp32"}
        how["device"] = self.device.type
        if self._asked_micro_batch:
            how["micro_batch"] = self._asked_micro_batch
        products = torch.get_float32_matmul_precision()
        if products != "highest":
            how["float32_products"] = products
        return how

    @property
    def cache_key(self) -> str:
        """What its features are found by in the cache: what it is, and how it is run."""
        return store.digest(self.digest, self.run)

    @property
    def projector_digest(self) -> str:
        """A sha256 of the projector's weights, which `digest` leaves out: with it, what decides `projections`.

        Raises:
            BadInput: an encoder that was saved without its projector.
        """
        return store.digest(*in_order(self._own_projector().state_dict()))

    @property
    def split_digest(self) -> str | None:
        """The digest of the split it was trained on, None where that is not known."""
        return self.card.get("split_digest")

    @cached_property
    def split(self) -> MembershipSplit:
        """The split it was trained on, its images loaded or drawn again.

        Raises:
            BadInput: none is recorded, or the images have changed.
        """
        if "split" not in self.card:
            raise BadInput(f"encoder {self.name} carries no split; give one with --split or pl.MembershipSplit.load")
        return MembershipSplit.from_record(self.card["split"])

    def like(self, model: nn.Module | Callable[[Tensor], Any], **keywords: Any) -> Encoder:
        """Another model with this encoder's preprocessing, side of views, pooling, precision and device.

        Args:
            model: as of `Encoder`.
            keywords: further ones of `Encoder`, name= among them.
        """
        same = {"image_size": self.image_size, "mean": self.mean, "std": self.std, "device": self.device}
        same |= {"view_side": self.view_side, "pooling": self._asked_pooling}
        same |= {"precision": self.run["precision"]}
        return Encoder(model, **same, **keywords)

    def untrained(self, seed: int) -> Encoder:
        """The random-encoder control: same architecture and preprocessing, weights that depend on the seed alone.

        A callable without its own factory is stood in for by a random ViT-Ti of the same image side; the result's
        `untrained_note` says which of the two it is.
        """
        name = f"untrained {self.name}, seed {seed}"
        if self._factory is not None:
            key = store.digest(self._asked_digest or uuid.uuid4().hex, "untrained", seed)
            return self.like(self._factory(seed), name=name, digest=key, patch=self._asked_patch)
        architecture, note = self.architecture, self.untrained_note
        if architecture is None:
            patch = next(p for p in (8, 16, 4, 2, 1) if self.image_size % p == 0 and self.image_size // p >= 4)
            architecture = Architecture("vit_tiny_patch16_224", self.image_size, {"patch_size": patch})
            note = f"a random ViT-Ti/{patch}, since the callable {self.name} brings no untrained= factory"
        card = {name: self.card[name] for name in ("recipe", "settings") if name in self.card} | {"seed": seed}
        decoder = None if self.decoder is None else self.decoder.recipe.objective(self.image_size, seed)
        model = architecture.build(seed) if decoder is None else decoder.backbone
        heads = {"decoder": decoder, "projector": self._untrained_projector(seed)}
        control = self.like(model, name=name, architecture=architecture, card=card, **heads)
        control.untrained_note = note
        return control

    def _untrained_projector(self, seed: int) -> nn.Module | None:
        if self.projector is None:
            return None
        with fresh_weights("projector", seed):
            return make_recipe(self.card["recipe"], **self.card["settings"]).head(self.width).float()

    def save(self, path: str | Path) -> None:
        """Write the weights in half precision, with all that loads them again, as a safetensors file.

        Raises:
            BadInput: a callable, whose weights are not ours to write, or a folder that cannot be written.
        """
        if self.architecture is None:
            raise BadInput(f"encoder {self.name} is a callable and cannot be saved; keep its own code and weights")
        about = {
            "architecture": self.architecture.json,
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
        }
        about |= {"name": self.name, "pooling": self.pooling, "card": self.card}
        checked(Header, json.loads(json.dumps(about)), f"{path}: what it would say of itself")
        state = self._model.state_dict()
        if self.projector is not None:
            state |= {PROJECTOR + name: value for name, value in self.projector.state_dict().items()}
        if self.decoder is not None:
            state |= {DECODER + name: value for name, value in self.decoder.surroundings().items()}
        write_weights(path, halved(state), {METADATA: json.dumps(about)})


def _filled(batch: Tensor, size: int) -> Tensor:
    """The batch, with its last image repeated up to `size` images."""
    return batch if len(batch) == size else torch.cat([batch, batch[-1:].expand(size - len(batch), -1, -1, -1)])


def _three(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    values = tuple(float(value) for value in values)
    if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
        raise ValueError(f"{name} is {values}; it must be three numbers, one for each of R, G, B (std above 0)")
    return values


def _side(side: int | None) -> int | None:
    if side is not None and side < 1:
        raise ValueError(f"view_side is {side}; it must be a side in pixels, at least 1")
    return side


def _pooling(pooling: str | None) -> str | None:
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}; it must be one of {', '.join(POOLINGS)}")
    return pooling


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise BadInput(f"images must be a tensor (B, 3, H, W) with B at least 1; found {found}")
    if images.dtype != torch.uint8:
        low, high = map(float, images.aminmax()) if images.is_floating_point() else (math.nan, math.nan)
        if not -3 < low <= high < 4:  # bicubic resampling overshoots [0, 1] a little
            raise BadInput(f"images must be uint8, or float in [0, 1]; found {images.dtype} from {low:g} to {high:g}")
