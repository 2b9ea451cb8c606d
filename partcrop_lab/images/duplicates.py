"""Duplicates among images, exact and near, found on pixels and never with an encoder (METHODS 3.3).

Two images are near duplicates when, as grey thumbnails of 24 x 24 and with one of them mirrored or not,

1. their 12 x 12 averages correlate above 0.9 (the same layout of light and dark), and
2. their detail, the thumbnail minus its 8 x 8 average, each pixel divided by the detail's local strength,
   correlates above 0.7, over the whole image and over its central 16 x 16.

The first test alone takes every small dark thing in a blue sky for the same; the second alone sees frames. What
this finds is one picture re-encoded, resized, recoloured, brightened or mirrored, or cropped or shifted by a few
hundredths of its side; not another photograph of the same thing, and not tighter crops. Images without detail count
as duplicates only when they are equal.

Measured on CIFAR-10's 50,000 training images (25 s on one core): 737 pairs, for which 601 images would be dropped
(56 of one white car); of the 96 pairs nearest to the thresholds about seven are different pictures, mostly ships on
one horizon. 225 of the 10,000 test images have a twin among the training images. On partshapes (2,000 images of
64 px, 1,000 of 32 px, background correlation 0 and 1): none. Share of planted twins found, of 1,000 CIFAR-10 images at
32 px / of 500 partshapes at 64 px: JPEG quality 90, 50 and 30, resizing to 1/2 and back, brightness +25 and -25,
contrast x 0.8, grey, mirrored, mirrored and JPEG 50: all / all; brightness x 1.3: 1.00 / 0.99; central crop of 97 % of
the side: 1.00 / 1.00, of 94 %: 0.99 / 0.81, of 90 %: 0.17 / 0.03; shift by one pixel: 0.48 / 1.00.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from partcrop_lab import store
from partcrop_lab.images.imageset import ImageSet
from partcrop_lab.progress import bar

SIDE, MARGIN = 24, 4
LUMA = (0.299, 0.587, 0.114)
COARSE_ABOVE, DETAIL_ABOVE = 0.9, 0.7
GREY_FLOOR = 4.0
"""Grey levels: detail weaker than this is taken for noise."""

CHUNK = 512
KEEP_ABOVE = 5000
"""Groups of more images than this are kept in the cache."""


def duplicate_groups(images: ImageSet) -> np.ndarray:
    """For each image the index of the first image of its group of duplicates, (n,) int64.

    Groups are connected: an image belongs where any of the group resembles it.

    >>> picture = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    >>> duplicate_groups(ImageSet(np.concatenate([picture, 255 - picture, picture[..., ::-1]]))).tolist()
    [0, 1, 0]
    """
    if len(images) <= KEEP_ABOVE:
        return _groups(images)
    key = store.digest("duplicates-1", images.digest)
    return store.cached_arrays("duplicates", key, lambda: {"groups": _groups(images)})["groups"]


def _groups(images: ImageSet) -> np.ndarray:
    first = {}
    exact = np.array([[first.setdefault(sha, i), i] for i, sha in enumerate(images.hashes)], np.int64).reshape(-1, 2)
    pairs = np.concatenate([exact, near_pairs(images)])
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(images), len(images)))
    _, group = connected_components(graph, directed=False)
    _, start = np.unique(group, return_index=True)
    return start[group]


def near_pairs(images: ImageSet) -> np.ndarray:
    """All pairs (i, j), i < j, of near duplicates, (m, 2) int64; exact duplicates with detail are among them."""
    thumbnails = torch.cat([_thumbnails(batch) for batch in images.batches()] or [torch.empty(0, SIDE, SIDE)])
    layout = _layout(thumbnails)
    found = [np.empty((0, 2), np.int64)]
    for start in bar(range(0, len(images), CHUNK), "duplicates", delay=1):
        block = thumbnails[start : start + CHUNK]
        for rows in (block, block.flip(-1)):
            i, j = (_layout(rows) @ layout[start:].T > COARSE_ABOVE).nonzero(as_tuple=True)
            i, j = i[i < j], j[i < j]
            same = _same_detail(rows, i, thumbnails[start:], j)
            found.append(torch.stack([i[same], j[same]], dim=1).numpy() + start)
    return np.unique(np.concatenate(found), axis=0)


def _thumbnails(batch: Tensor) -> Tensor:
    """Grey area averages (B, 24, 24) of images (B, 3, S, S); smaller images are enlarged bilinearly first."""
    grey = (batch.float() * torch.tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    if grey.shape[-1] < SIDE:
        grey = F.interpolate(grey, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(grey, SIDE)[:, 0]


def _layout(thumbnails: Tensor) -> Tensor:
    """Unit vectors (B, 144): 12 x 12 averages, centred."""
    layout = F.avg_pool2d(thumbnails, 2).flatten(1)
    return F.normalize(layout - layout.mean(dim=1, keepdim=True))


def _detail(thumbnails: Tensor) -> Tensor:
    """The thumbnails (B, 24, 24) less their 8 x 8 averages, over the local strength of what is left."""
    thumbnails = thumbnails[:, None]
    smooth = F.interpolate(F.avg_pool2d(thumbnails, 3), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    detail = thumbnails - smooth
    strength = F.avg_pool2d(detail**2, 7, stride=1, padding=3, count_include_pad=False).sqrt()
    return (detail / (strength + GREY_FLOOR))[:, 0]


def _same_detail(left: Tensor, i: Tensor, right: Tensor, j: Tensor) -> Tensor:
    """Whether the detail of ``left[i]`` and ``right[j]`` agrees, (m,) bool; a few thousand pairs at a time."""
    same = [torch.empty(0, dtype=torch.bool)]
    for a, b in zip(i.split(4096), j.split(4096), strict=True):
        a, b = _detail(left[a]), _detail(right[b])
        middle = slice(MARGIN, SIDE - MARGIN)
        whole = F.cosine_similarity(a.flatten(1), b.flatten(1))
        centre = F.cosine_similarity(a[:, middle, middle].flatten(1), b[:, middle, middle].flatten(1))
        same.append(torch.minimum(whole, centre) > DETAIL_ABOVE)
    return torch.cat(same)
