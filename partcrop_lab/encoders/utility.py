"""What frozen features are good for: a linear probe and a weighted nearest-neighbour vote."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import normalize

from partcrop_lab.encoders.encoder import Encoder
from partcrop_lab.errors import BadInput
from partcrop_lab.images import ImageSet

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Of the vote of nearest neighbours."""


def embed(encoder: Encoder, images: ImageSet, pooling: str | None = "mean") -> Tensor:
    """The vectors (n, D) of all images of a set, on the CPU; images are read a batch at a time."""
    return torch.cat([encoder.vectors(batch, pooling).cpu() for batch in images.batches()])


def linear_probe(encoder: Encoder, train: ImageSet, test: ImageSet) -> float:
    """Accuracy in [0, 1] on `test` of a logistic regression on the standardised mean features of `train`.

    Raises:
        BadInput: images without labels.
    """
    return float(probed(encoder, train, test).mean())


def probed(encoder: Encoder, train: ImageSet, test: ImageSet) -> np.ndarray:
    """Which images of `test` the linear probe gets right, (n,) bool.

    Raises:
        BadInput: images without labels.
    """
    return fitted(embed(encoder, train), _labels(train), embed(encoder, test), _labels(test))


def judged(encoder: Encoder, train: ImageSet, test: ImageSet) -> tuple[np.ndarray, float]:
    """What `probed` and `knn` give, the images embedded once for both.

    Raises:
        BadInput: images without labels.
    """
    sides = embed(encoder, train), _labels(train), embed(encoder, test), _labels(test)
    return fitted(*sides), _knn(*sides)


def halves(labelled: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The first half of a set, which trains a probe, and the second, which tests it."""
    middle = len(labelled) // 2
    return labelled.subset(slice(0, middle)), labelled.subset(slice(middle, None))


def classifier() -> Pipeline:
    """The logistic regression that all probes are, on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))


def fitted(train: Tensor, labels: np.ndarray, test: Tensor, truth: np.ndarray) -> np.ndarray:
    """Which vectors of `test` (m, D) the probe that is fitted on those of `train` (n, D) gets right, (m,) bool."""
    return classifier().fit(train.numpy(), labels).predict(test.numpy()) == truth


def gain(right: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """How much more often one is right than the other on the same images, with its 95 % interval.

    The normal interval of the mean of paired differences; the images are the sample.

    Args:
        right, others: (n,) bool, n at least 2.

    >>> gain(np.array([True, True, False, True]), np.array([False, True, False, True]))[0]
    0.25
    """
    difference = right.astype(float) - others
    mean, half = difference.mean(), 1.96 * difference.std(ddof=1) / len(difference) ** 0.5
    return float(mean), float(mean - half), float(mean + half)


def knn(
    encoder: Encoder,
    train: ImageSet,
    test: ImageSet,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> float:
    """Accuracy in [0, 1] of the vote of the nearest `train` images, each weighted by exp(cosine / temperature).

    The evaluation of DINO (arXiv 2104.14294).

    Raises:
        BadInput: images without labels.
    """
    sides = embed(encoder, train), _labels(train), embed(encoder, test), _labels(test)
    return _knn(*sides, neighbours, temperature)


def _knn(
    train: Tensor,
    labels: np.ndarray,
    test: Tensor,
    truth: np.ndarray,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> float:
    labels, truth = torch.as_tensor(labels), torch.as_tensor(truth)
    cosine = normalize(test, dim=1) @ normalize(train, dim=1).T
    near, rows = cosine.topk(min(neighbours, len(labels)), dim=1)
    votes = torch.zeros(len(truth), int(labels.max()) + 1)
    votes.scatter_add_(1, labels[rows], (near / temperature).exp())
    return float((votes.argmax(1) == truth).float().mean())


def _labels(images: ImageSet) -> np.ndarray:
    if (images.labels < 0).any():
        raise BadInput(f"{images} has images without a label; a probe needs the class of every image")
    return images.labels
