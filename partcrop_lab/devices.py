"""Where and how precisely the encoders run, and the seeds of everything random."""

from __future__ import annotations

import functools
import hashlib

import torch


@functools.cache
def default_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the chip multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of "fp32", "bf16" or "auto" (bf16 where the chip has it).

    Raises:
        ValueError: another name.
    """
    table = {"fp32": torch.float32, "bf16": torch.bfloat16}
    table["auto"] = torch.bfloat16 if bf16_is_fast(device) else torch.float32
    if precision not in table:
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(table)}")
    return table[precision]


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
