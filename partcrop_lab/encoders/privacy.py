"""DP-SGD: each image's gradient clipped, noise on their sum, and what that guarantees (Abadi et al., CCS 2016).

A guarantee is counted only where it holds (METHODS 6): the loss is a sum over images, so that clipping each image's
gradient bounds what it can change; everything else that training looks at is public or follows from the noisy steps.
That is so for masked-image models, and for supervised training without mixup. Losses that compare images with each
other (contrastive, clustering, centred distillation, batch norms) have no gradient of one image: there the whole
gradient is clipped and noise of the same size added, which may protect, but nothing is guaranteed.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, vmap

from partcrop_lab.encoders.recipes import Objective, SeparableObjective

ACCOUNTANTS = ("prv", "rdp")
ORDERS = [*range(2, 65), 128, 256, 512, 1024]
"""Of the Renyi divergence. Whole ones: at others Opacus drops terms that do not converge, and libraries differ."""
CHUNK = 16
"""Images whose gradients are held in memory together."""


@dataclass(frozen=True)
class Privacy:
    """How a training run is to be private.

    Attributes:
        noise: standard deviation of the noise on the sum of gradients, as a multiple of `clip`; above 0.
        clip: largest norm of one image's gradient, above 0. All views of an image in a step count as one.
        delta: of the guarantee, in (0, 1); below one over the number of images to mean anything.
        accountant: of Opacus, "prv", or "rdp", which is looser but quick where epsilon is above 20.
        secret: draw noise and images from a key that only the folder of the run knows. Without it they follow from the
            seed: such a run can be repeated, for study, and its guarantee supposes that nobody knows the seed.

    Raises:
        ValueError: a value out of range.
    """

    noise: float
    clip: float = 1.2
    delta: float = 1e-5
    accountant: str = "prv"
    secret: bool = False

    def __post_init__(self) -> None:
        for name in ("noise", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number above 0")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must lie between 0 and 1")
        if self.accountant not in ACCOUNTANTS:
            raise ValueError(f"accountant is {self.accountant!r}; it must be one of {', '.join(ACCOUNTANTS)}")

    @classmethod
    def for_epsilon(cls, epsilon: float, images: int, batch_size: int, epochs: int, **settings: object) -> Privacy:
        """The least noise, to a hundredth of epsilon, by which so long a training has this epsilon; see `epsilon`.

        Args:
            epsilon: wanted, above 0.
            images: trained on, N.
            batch_size: of the recipe.
            epochs: of the whole training.
            settings: clip=, delta=, accountant=, secret=.

        Raises:
            ValueError: an epsilon that is not above 0, or too small to be reached by any noise.
        """
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon is {epsilon}; it must be a number above 0")
        plain = cls(noise=1.0, **settings)
        batches = math.ceil(images / batch_size)
        how = {"sample_rate": 1 / batches, "steps": epochs * batches, "accountant": plain.accountant}
        wanted = {"target_epsilon": epsilon, "target_delta": plain.delta, "epsilon_tolerance": min(0.01, epsilon / 100)}
        try:
            with _quiet():
                noise = get_noise_multiplier(**wanted, **how, **plain._orders)
        except ValueError as error:
            raise ValueError(
                f"epsilon is {epsilon}, which no noise reaches in {epochs} epochs of {images} images by the accountant "
                f"{plain.accountant!r}; it must be larger, or the training shorter"
            ) from error
        return cls(noise=noise, **settings)

    def epsilon(self, batches: int, steps: int) -> float:
        """Of so many steps, by Opacus' accountant, if each draws each image with a chance of one in `batches`."""
        counted = create_accountant(self.accountant)
        counted.history = [(self.noise, 1 / batches, steps)]
        with _quiet():
            return float(counted.get_epsilon(delta=self.delta, **self._orders))

    @property
    def _orders(self) -> dict[str, list[int]]:
        return {"alphas": ORDERS} if self.accountant == "rdp" else {}

    def spent(self, objective: Objective, batches: int, steps: int) -> tuple[float | None, str]:
        """The epsilon of so many steps, None where there is none, and what is guaranteed, in one sentence."""
        why = not_separable(objective)
        if why:
            return None, f"no formal guarantee: {why}"
        epsilon = self.epsilon(batches, steps)
        supposes = "" if self.secret else ", if nobody knows the seed"
        pair = f"({epsilon:.3g}, {self.delta:g})"
        counted = f"Opacus' {self.accountant.upper()} accountant with Poisson sampling{supposes}"
        return epsilon, (
            f"{pair}-differential privacy of each image for the weights, by {counted}; not for the losses in log and "
            "card, nor for choices made by looking at results"
        )


def in_short(guarantee: str) -> str:
    """The head of a sentence of `Privacy.spent`; what the guarantee supposes is left out, so say it beside.

    >>> in_short("(8, 1e-05)-differential privacy of each image for the weights, by Opacus' RDP accountant")
    '(8, 1e-05)-differential privacy'
    >>> in_short("no formal guarantee: batch norms mix the images of a batch")
    'no formal guarantee'
    """
    return guarantee.split(":")[0].split(" of each image")[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Opacus' advice to look at more orders: at any of them the epsilon holds, only not as tightly."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")
        yield


def not_separable(objective: Objective) -> str | None:
    """Why the loss is no sum over images that depend on each alone; None where it is."""
    if not isinstance(objective, SeparableObjective):
        return f"the loss of {objective.recipe.name} is not computed image by image, so no image's share can be bounded"
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in objective.modules()):
        return "batch norms mix the images of a batch"
    if getattr(objective.recipe, "mixup", 0.0):
        return "mixup mixes the images of a batch"
    return None


def clipped_sum(objective: SeparableObjective, drawn: tuple[Tensor, ...], clip: float) -> tuple[list[Tensor], Tensor]:
    """The sum over images of their gradients, each cut to a norm of at most `clip`, and the losses.

    Args:
        objective: in training mode; its parameters that are trained get a gradient.
        drawn: what `SeparableObjective.drawn` gave for B images; B may be 0.
        clip: the bound.

    Returns:
        One tensor for each trained parameter, in their order, and the losses (B,).
    """
    named = {name: value for name, value in objective.named_parameters() if value.requires_grad}
    fixed = {name: value for name, value in objective.named_parameters() if not value.requires_grad}
    fixed |= dict(objective.named_buffers())
    one = _OneImage(objective)

    def loss(trained: dict[str, Tensor], *own: Tensor) -> tuple[Tensor, Tensor]:
        state = {f"objective.{name}": value for name, value in (fixed | trained).items()}
        found = functional_call(one, state, own)
        return found, found.detach()

    gradients = vmap(grad(loss, has_aux=True), in_dims=(None, *[0] * len(drawn)), randomness="different")
    total, losses = {name: torch.zeros_like(value) for name, value in named.items()}, [drawn[0].new_zeros(0)]
    values = {name: value.detach() for name, value in named.items()}
    for start in range(0, len(drawn[0]), CHUNK):
        part = slice(start, start + CHUNK)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # of attention in CAE's regressor
            found, some = gradients(values, *(each[part] for each in drawn))
        norms = torch.stack([value.flatten(1).norm(dim=1) for value in found.values()]).norm(dim=0)
        share = (clip / norms.clamp(min=1e-12)).clamp(max=1)
        for name, value in found.items():
            total[name] += torch.einsum("b,b...->...", share, value)
        losses.append(some)
    return list(total.values()), torch.cat(losses)


class _OneImage(nn.Module):
    """The loss of one image, as a module's forward pass, which is what `functional_call` calls."""

    def __init__(self, objective: SeparableObjective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, *own: Tensor) -> Tensor:
        """Of what was drawn for the image, a scalar."""
        return self.objective.each(*(part[None] for part in own))[0]


def noise_like(tensors: list[Tensor], scale: float, source: Generator) -> Iterator[Tensor]:
    """Gaussian noise of this standard deviation for each tensor, drawn on the CPU."""
    for tensor in tensors:
        yield (scale * torch.randn(tensor.shape, generator=source)).to(tensor)
