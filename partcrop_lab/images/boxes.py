"""Object boxes that come with images: ImageNet's XML files, or a table; and where they lie once an image is square."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from partcrop_lab.errors import BadInput
from partcrop_lab.files import read_bytes
from partcrop_lab.images.imageset import Box

COLUMNS = ("name", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Annotation:
    """The objects of one image as its file describes them.

    Attributes:
        boxes: in pixels of an image of `width` x `height`.
        width, height: that image's; None where the boxes are in the pixels of the image at hand.
        objects: what each box holds, as the file names it.
    """

    boxes: tuple[Box, ...] = ()
    width: float | None = None
    height: float | None = None
    objects: tuple[str, ...] = ()

    def squared(self, shape: tuple[int, int], size: int) -> tuple[Box, ...]:
        """The boxes once the image, of (width, height), has become a square: shorter side to `size`, centre kept.

        What is cut off is cut off of the boxes too; of one that lies outside altogether nothing is left.

        >>> Annotation(((0, 0, 20, 10),)).squared((40, 20), 10)
        ((0.0, 0.0, 5.0, 5.0),)
        """
        width, height = shape
        grow = size / min(shape)
        across, down = grow * width / (self.width or width), grow * height / (self.height or height)
        left, top = (grow * width - size) / 2, (grow * height - size) / 2
        placed = []
        for x0, y0, x1, y1 in self.boxes:
            xs, ys = (x0 * across - left, x1 * across - left), (y0 * down - top, y1 * down - top)
            box = (*(min(max(v, 0.0), float(size)) for v in (xs[0], ys[0], xs[1], ys[1])),)
            if box[0] < box[2] and box[1] < box[3]:
                placed.append(box)
        return tuple(placed)


def read_xml(path: Path) -> Annotation:
    """The boxes of an XML file in the layout of PASCAL VOC, which ImageNet's are in.

    Raises:
        BadInput: a file that cannot be read, or without numbers where a box needs them.
    """
    try:
        root = ET.fromstring(read_bytes(path))
        sides = [float(root.findtext(f"size/{name}") or 0) or None for name in ("width", "height")]
        found = root.findall("object")
        boxes = [tuple(float(one.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")) for one in found]
    except BadInput:
        raise
    except (ET.ParseError, OSError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not a readable file of object boxes ({error}); restore or remove it") from error
    for box in boxes:
        if not (box[0] < box[2] and box[1] < box[3]):
            raise BadInput(f"{path}: the box {box} is empty; it must be xmin < xmax, ymin < ymax")
    return Annotation(tuple(boxes), *sides, tuple(one.findtext("name") or "" for one in found))


def read_table(path: Path) -> dict[str, Annotation]:
    """The boxes of many images from a CSV, one row per box: name, x0, y0, x1, y1 in pixels of the image's own size.

    Raises:
        BadInput: a file that cannot be read, without these columns, or with boxes that are empty.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path)), dtype={"name": str})
    except BadInput:
        raise
    except (OSError, ValueError, OverflowError) as error:
        raise BadInput(f"{path}: not a readable CSV of object boxes ({error})") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise BadInput(f"{path}: has no column {', '.join(missing)}; a table of boxes has {', '.join(COLUMNS)}")
    numbers = table[list(COLUMNS[1:])].apply(pd.to_numeric, errors="coerce")
    if table.columns.has_duplicates or not table["name"].notna().all():
        raise BadInput(f"{path}: a column twice, or a row without a name; each box needs the name of its image")
    wrong = ~(np.isfinite(numbers).all(axis=1) & (numbers.x0 < numbers.x1) & (numbers.y0 < numbers.y1))
    if wrong.any():
        row = int(wrong.idxmax())
        raise BadInput(f"{path}: row {row + 2} holds no box: {table.iloc[row].to_dict()}; it must be x0 < x1, y0 < y1")
    grouped = numbers.groupby(table["name"], sort=False)
    return {name: Annotation(tuple(some.itertuples(index=False, name=None))) for name, some in grouped}
