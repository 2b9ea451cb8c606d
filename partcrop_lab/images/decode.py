"""From an image file of any size and mode to square uint8 RGB."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from partcrop_lab.errors import BadInput
from partcrop_lab.files import open_regular
from partcrop_lab.limits import Together, refuse_above

SMALLEST_SIDE = 8

FORMATS = (
    *("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "AVIF"),
    *("HEIF", "JXL"),  # where a plugin brings them
)
"""What is read, whatever a file is called: plain pictures, and nothing that Pillow hands to another program (EPS)."""

DECODED = Together("pixels")
"""Pixels of images that threads decode at the same time."""

Encoded = Path | bytes | Image.Image | BadInput
"""An image before decoding: a file, a file's bytes, what another library decoded, or why it may not be read."""


def side_if_square(encoded: Encoded) -> int | None:
    """The side in pixels of a square image, read from its header; None where it is not square or not readable."""
    try:
        with _open(encoded) as image:
            return image.width if image.width == image.height else None
    except Exception:  # what is wrong with the file is said when it is decoded
        return None


def shape_of(encoded: Encoded) -> tuple[int, int]:
    """Width and height in pixels, EXIF orientation applied; (1, 1) where it is not readable."""
    try:
        with _open(encoded) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # width and height are exchanged
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception:  # what is wrong with the file is said when it is decoded
        return 1, 1


def decode(encoded: Encoded, name: str, size: int) -> np.ndarray:
    """The image as a square, shorter side to `size` and centre crop, bicubic with antialias: (3, size, size) uint8.

    EXIF orientation is applied, transparency is laid on white, 16-bit values are divided by 257, and of several
    frames the first counts. Colour profiles are not applied.

    Args:
        encoded: the image.
        name: how to name it in an error.
        size: the side in pixels.

    Raises:
        BadInput: not an image, a damaged one, one with a side under 8 pixels, or one too large to be safe.
    """
    try:
        with _open(encoded) as image:
            if min(image.size) < SMALLEST_SIDE:
                raise BadInput(
                    f"{name}: {image.width} x {image.height} pixels; an image needs at least {SMALLEST_SIDE} a side"
                )
            with DECODED.taking(image.width * image.height):
                return np.asarray(_square(_to_rgb(image), size)).transpose(2, 0, 1)
    except BadInput as error:
        raise BadInput(str(error).replace(str(encoded), name) if isinstance(encoded, Path) else str(error)) from error
    except UnidentifiedImageError as error:
        raise BadInput(f"{name}: not an image that can be read; found {_kind(encoded)}") from error
    except Image.DecompressionBombError as error:
        raise BadInput(
            f"{name}: more than {2 * Image.MAX_IMAGE_PIXELS // 10**6} million pixels, which may be a "
            "decompression bomb; make it smaller first"
        ) from error
    except Exception as error:  # damaged files make Pillow's plugins raise almost anything
        raise BadInput(f"{name}: a damaged or unsupported image ({error}); replace or remove it") from error


def _open(encoded: Encoded) -> Image.Image:
    if isinstance(encoded, BadInput):
        raise encoded
    if isinstance(encoded, Image.Image):
        return encoded
    if isinstance(encoded, bytes):
        return Image.open(io.BytesIO(encoded), formats=_formats())
    with open_regular(encoded) as file:
        refuse_above("encoded", os.fstat(file.fileno()).st_size, f"{encoded}: its size in bytes")
    return Image.open(encoded, formats=_formats())


def _formats() -> list[str]:
    """Those of `FORMATS` that this installation of Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


SIGNATURES = {
    b"<": "a web page or XML",
    b"version https://git-lfs": "a pointer of Git LFS",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"PK": "a ZIP archive",
}
"""What a file that is no image may be, by how it begins."""


def _kind(encoded: Encoded) -> str:
    """What a file seems to be; none of its bytes is shown, for a link may lead to what is nobody's business."""
    if isinstance(encoded, Path):
        with open_regular(encoded) as file:
            start = file.read(64)
    else:
        start = encoded[:64]
    known = (kind for begin, kind in SIGNATURES.items() if start.lstrip().startswith(begin))
    return next(known, "another kind of file") if start else "an empty file"


def _to_rgb(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)  # not copied: a large image takes memory enough
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16-bit integers or of floats in [0, 1] as 8 bits."""
    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"mode {image.mode} with values {values.min():g} to {values.max():g}, not 0 to {top:g}")
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def _square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
