"""CIFAR-10, CIFAR-100 and STL-10 through torchvision."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets

from partcrop_lab.errors import BadInput
from partcrop_lab.images.listing import Listing
from partcrop_lab.images.parquet import parquet_listing


@dataclass(frozen=True)
class TorchvisionSet:
    """Where torchvision keeps a data set, and where a person without a network gets it."""

    cls: type
    parts: tuple[str, ...]
    folder: str
    archive: str


TORCHVISION_SETS = {
    "cifar10": TorchvisionSet(
        datasets.CIFAR10,
        ("train", "test"),
        "cifar-10-batches-py",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
    "cifar100": TorchvisionSet(
        datasets.CIFAR100,
        ("train", "test"),
        "cifar-100-python",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    ),
    "stl10": TorchvisionSet(
        datasets.STL10,
        ("train", "test", "unlabeled"),
        "stl10_binary",
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    ),
}


def torchvision_listing(name: str, root: Path, part: str = "train") -> Listing:
    """One part of a torchvision data set under `root`, downloaded where it is missing.

    A parquet file `root`/<name>/<part>.parquet is used where there is one.

    Raises:
        BadInput: the data set is neither there nor to be downloaded.
        ValueError: a part that it does not have.
    """
    known = TORCHVISION_SETS[name]
    if part not in known.parts:
        raise ValueError(f"part is {part!r}; {name} has {', '.join(known.parts)}")
    if (file := root / name / f"{part}.parquet").is_file():
        return parquet_listing(file)
    data = _open(name, root, part)
    images = data.data if name.startswith("cifar") else data.data.transpose(0, 2, 3, 1)
    labels = np.asarray(data.targets if name.startswith("cifar") else data.labels, dtype=np.int64)

    def read(rows: np.ndarray) -> Iterator[Image.Image]:
        return (Image.fromarray(images[row]) for row in rows)

    return Listing(
        where=name,
        names=[f"{part}-{row:06d}" for row in range(len(images))],
        labels=labels,
        classes=tuple(data.classes),
        read=read,
        stamp=lambda rows: [name, part, str(root.resolve())],
    )


def _open(name: str, root: Path, part: str) -> datasets.VisionDataset:
    known = TORCHVISION_SETS[name]
    which = {"split": part} if name == "stl10" else {"train": part == "train"}
    try:
        return known.cls(root, download=False, **which)
    except RuntimeError:
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(30)
        try:
            return known.cls(root, download=True, **which)
        except (OSError, RuntimeError) as error:
            raise BadInput(
                f"{name} is not under {root} and cannot be downloaded ({error}); unpack {known.archive} so that "
                f"{root / known.folder} exists, or put a parquet file at {root / name / part}.parquet"
            ) from error
        finally:
            socket.setdefaulttimeout(patience)
