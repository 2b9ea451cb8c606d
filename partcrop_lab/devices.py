"""Where and how precisely the encoders run, and the seeds of everything random."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator

import torch

PRECISION_VARIABLE = "PARTCROP_LAB_PRECISION"
"""Environment variable that says what precision "auto" is, e.g. to imitate a chip or to save time."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@functools.cache
def default_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def bf16_is_fast() -> bool:
    """Whether this machine's CPU multiplies bfloat16 matrices in hardware (Intel AMX)."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def resolve_precision(precision: str) -> torch.dtype:
    """The dtype of "fp32", "bf16" or "auto": fp32 on every device, so that no number follows the chip.

    The environment variable `PRECISION_VARIABLE` makes "auto" another precision.

    Raises:
        ValueError: another name, here or in the variable.
    """
    if precision == "auto":
        chosen = os.environ.get(PRECISION_VARIABLE) or "fp32"
        return _precision(chosen, PRECISION_VARIABLE, list(PRECISIONS))
    return _precision(precision, "precision", [*PRECISIONS, "auto"])


def _precision(name: str, where: str, allowed: list[str]) -> torch.dtype:
    if name not in PRECISIONS:
        raise ValueError(f"{where} is {name!r}; it must be one of {', '.join(allowed)}")
    return PRECISIONS[name]


@contextlib.contextmanager
def fresh_weights(*parts: object) -> Iterator[None]:
    """Modules made inside draw their weights by a seed, and in float64; call `.float()` on them.

    Normal numbers drawn in float32 differ in their last bit between chips with and without AVX2. Those drawn in float64
    and rounded are the same everywhere.

    Args:
        parts: of the seed, see `seed_of`.
    """
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*parts))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all parts, e.g. a seed and an image's digest.

    >>> seed_of(0, "crops") != seed_of(1, "crops")
    True
    """
    text = "\x00".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by `seed_of(*parts)`."""
    return torch.Generator().manual_seed(seed_of(*parts))
