"""The released evaluation, flaw and all, for teaching (METHODS 3, 3.9).

The authors' public code feeds members through RandomResizedCrop(0.2, 1) and a flip, and non-members through a
plain resize, in attacker training and in evaluation, and reports the best epoch on the reported set. The attack
then also measures the augmentation. Nothing else in this package may look at membership before features exist;
this file does, on purpose, and every result made with it says so.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import BaseEstimator

from partcrop_lab.attacks.attackers import MLPAttacker, make_attacker
from partcrop_lab.devices import generator
from partcrop_lab.images import ImageSet, MembershipSplit
from partcrop_lab.images.resample import crop_resize, random_boxes

MEMBER_SCALE = (0.2, 1.0)


def released_images(split: MembershipSplit, seed: int = 0) -> ImageSet:
    """The images of a split as the released code shows them: members cropped and flipped at random, others plain.

    Members keep their size: each crop is resized back to the full side and rounded to uint8.
    """
    images, source = split.images, generator("released", seed)
    boxes = random_boxes(len(images), 1, images.size, MEMBER_SCALE, generator=source)
    flip = torch.rand(len(images), 1, generator=source) < 0.5
    shown = images.batch(slice(None))
    rows = torch.from_numpy(np.flatnonzero(split.member))
    for some in rows.split(256):
        cropped = crop_resize(shown[some], boxes[some], images.size, flip[some])[:, 0]
        shown[some] = (cropped * 255).round().clamp(0, 255).to(torch.uint8)
    return ImageSet(shown, images.names, images.labels, images.classes)


def accuracy_by_epoch(
    X: np.ndarray, member: np.ndarray, fold: np.ndarray, attacker: str | BaseEstimator = "mlp", seed: int = 0
) -> np.ndarray:
    """Balanced accuracy on the held-out fold after every epoch, averaged over folds: (epochs,).

    Its maximum is what the released code reports: the epoch is chosen on the very images that are reported.

    Raises:
        ValueError: the attacker is not trained in epochs.
    """
    curves = []
    for k in np.unique(fold):
        held_out, curve = fold == k, []
        fitted = make_attacker(attacker, seed + int(k))
        if not isinstance(fitted, MLPAttacker):
            raise ValueError(f"attacker {attacker!r} has no epochs; choose one whose name starts with mlp")
        truth = member[held_out]

        def note(epoch: int, loss: float, current: MLPAttacker, rows=held_out, truth=truth, curve=curve) -> None:
            guess = current.decision_function(X[rows]) > 0
            curve.append((guess[truth].mean() + (~guess)[~truth].mean()) / 2)

        fitted.fit(X[~held_out], member[~held_out].astype(int), on_epoch=note)
        curves.append(curve)
    return np.mean(curves, axis=0)
