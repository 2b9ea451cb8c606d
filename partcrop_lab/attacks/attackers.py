"""Attackers: scikit-learn classifiers from membership features to a score (METHODS 2)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from partcrop_lab.errors import BadInput

STRUCTURES = {
    "mlp": (512, 256, 128),
    "mlp-wide": (1024, 512, 256),
    "mlp-narrow": (256, 128, 64),
    "mlp-deep": (512, 256, 256, 128),
    "mlp-shallow": (512, 128),
}

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}
SCHEDULES = ("cosine", "constant")
DRAWN_IN = torch.float64
"""What weights begin in: numbers drawn in float32 differ in their last bit between chips, see `fresh_weights`."""
V2_STEP = 1e-4
"""Of the second version's attacker. Its norms undo the small weights that it begins with: a step of 1e-3 would change
them by a tenth, and training would be chaotic."""
UNSUPERVISED = "unsupervised"
"""The name of the attacker that knows no member."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-6) over the features (PartCrop-v2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, F)."""
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class MLPAttacker(ClassifierMixin, BaseEstimator):
    """The paper's attacker: a small perceptron trained with Adam and binary cross-entropy.

    Two choices differ from the published ones, so that its scores are the same on every machine. A ReLU has a kink, and
    a step that never shrinks crosses it again and again: training then magnifies the last bit of a feature until the
    AUC moves by 0.02. With GELU, and steps that shrink along a cosine, it stays the same to three decimals
    (`tests/test_portability.py`). ``activation="relu", schedule="constant"`` trains as published.

    Args:
        hidden: widths of the hidden layers; the published 512-256-128 by default.
        variant: "v1" (`activation` after each hidden layer) or "v2" (Tanh, and RMS normalisation of the input and after
            each hidden layer).
        epochs, batch: passes over the training set; members and as many non-members in one batch.
        lr, weight_decay: of Adam.
        activation: of v1, "gelu" or "relu" (published).
        schedule: of the step, "cosine" from `lr` to 0 over the epochs, or "constant" (published).
        standardise: bring each feature to mean 0 and variance 1 over the training set first. The published attacker
            sees raw energies: pass False for that.
        init_std: weights are drawn from N(0, init_std^2), biases are 0; with GELU from N(0, 2 init_std^2): it lets
            half of a small signal through, where a ReLU lets half of its variance through.
        random_state: seed of weights and batches.

    Source: METHODS section 2.

    >>> X, y = np.eye(8), np.arange(8) % 2
    >>> MLPAttacker(epochs=2).fit(X, y).decision_function(X).shape
    (8,)
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = STRUCTURES["mlp"],
        variant: str = "v1",
        epochs: int = 100,
        batch: int = 100,
        lr: float = 1e-3,
        weight_decay: float = 5e-4,
        standardise: bool = True,
        init_std: float = 0.01,
        random_state: int = 0,
        activation: str = "gelu",
        schedule: str = "cosine",
    ) -> None:
        self.hidden = hidden
        self.variant = variant
        self.activation = activation
        self.schedule = schedule
        self.epochs = epochs
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.standardise = standardise
        self.init_std = init_std
        self.random_state = random_state

    def _network(self, features: int, generator: torch.Generator) -> nn.Sequential:
        second = self.variant == "v2"
        layers: list[nn.Module] = [RMSNorm()] if second else []
        for width, following in pairwise((features, *self.hidden)):
            layers.append(nn.Linear(width, following, dtype=DRAWN_IN))
            layers += [nn.Tanh(), RMSNorm()] if second else [ACTIVATIONS[self.activation]()]
        layers.append(nn.Linear(self.hidden[-1], 1, dtype=DRAWN_IN))
        spread = self.init_std * (2**0.5 if self.variant == "v1" and self.activation == "gelu" else 1)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, spread, generator=generator)
                nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)

    def fit(
        self, X: np.ndarray, y: np.ndarray, on_epoch: Callable[[int, float, MLPAttacker], None] | None = None
    ) -> MLPAttacker:
        """Train on features X (n, F) and membership y (n,) of 0 and 1.

        Args:
            on_epoch: called after each epoch with its number, its mean loss and this attacker, for live curves.
        """
        self._check_options()
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_ = np.unique(y)
        if len(self.classes_) != 2:
            raise ValueError(f"y holds {len(self.classes_)} classes; an attacker needs members and non-members")
        self.mean_, self.scale_ = self._moments(X) if self.standardise else (np.zeros(X.shape[1]), np.ones(X.shape[1]))
        generator = torch.Generator().manual_seed(self.random_state)
        self.network_ = self._network(X.shape[1], generator).float()
        inputs = self._tensor(X)
        targets = torch.from_numpy(y == self.classes_[1]).float()
        sides = [torch.nonzero(targets == side).flatten() for side in (0, 1)]
        adam = torch.optim.Adam(self.network_.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
        lengths = CosineAnnealingLR(adam, T_max=max(1, self.epochs)) if self.schedule == "cosine" else None
        for epoch in range(self.epochs):
            loss = self._epoch(inputs, targets, sides, adam, generator)
            if lengths is not None:
                lengths.step()
            if on_epoch is not None:
                on_epoch(epoch, loss, self)
        return self

    def _check_options(self) -> None:
        right = {"variant": ("v1", "v2"), "activation": tuple(ACTIVATIONS), "schedule": SCHEDULES}
        for name, allowed in right.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")

    def _epoch(
        self, inputs: Tensor, targets: Tensor, sides: list[Tensor], adam: torch.optim.Adam, generator: torch.Generator
    ) -> float:
        shuffled = [side[torch.randperm(len(side), generator=generator)] for side in sides]
        batches = -(-max(map(len, sides)) // self.batch)
        losses = []
        for pair in zip(*(side.tensor_split(batches) for side in shuffled)):
            rows = torch.cat(pair)
            loss = nn.functional.binary_cross_entropy_with_logits(self.network_(inputs[rows])[:, 0], targets[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _moments(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation by which features are standardised."""
        return X.mean(0), X.std(0) + 1e-8

    def _tensor(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy((X - self.mean_) / self.scale_).float()

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """The log-odds of membership, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        with torch.inference_mode():
            return self.network_(self._tensor(X))[:, 0].double().numpy()

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities of non-membership and membership, (n, 2)."""
        member = 1 / (1 + np.exp(-self.decision_function(X)))
        return np.stack([1 - member, member], 1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Membership at probability one half, (n,)."""
        return self.classes_[(self.decision_function(X) > 0).astype(int)]


class SetAttacker(MLPAttacker):
    """DeepSets (Zaheer et al., NeurIPS 2017, arXiv 1703.06114): the features of an image are a set, their order unseen.

    Each feature passes the same two tanh layers, the largest of each unit's values is kept, and two more layers make
    the score. Arguments as those of `MLPAttacker`; `hidden` are two widths, `variant` and `init_std` are not used.

    >>> X, y = np.random.default_rng(0).normal(size=(8, 5)), np.arange(8) % 2
    >>> fitted = SetAttacker((4, 4), epochs=2).fit(X, y)
    >>> bool(np.allclose(fitted.decision_function(X), fitted.decision_function(X[:, ::-1])))
    True
    """

    def _network(self, features: int, generator: torch.Generator) -> nn.Sequential:
        first, second = self.hidden
        each = [nn.Unflatten(1, (features, 1)), nn.Linear(1, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh()]
        network = nn.Sequential(*each, _Largest(), nn.Linear(second, second), nn.Tanh(), nn.Linear(second, 1)).to(
            DRAWN_IN
        )
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)
        return network

    def _moments(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(X.shape[1], X.mean()), np.full(X.shape[1], X.std() + 1e-8)


class _Largest(nn.Module):
    """The maximum over the elements of sets (B, elements, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(1)


class ThresholdAttacker(ClassifierMixin, BaseEstimator):
    """An attacker that knows no member: the mean of the standardised features, all of which must rise with membership.

    Its threshold lies where two normal distributions of one variance, fitted to the scores, are as likely as each
    other; so it is 0 in its log-odds.

    Args:
        random_state: seed of the fit.

    >>> X = np.array([0.1, 0.2, 0.3, 0.9, 1.0, 1.1])[:, None]
    >>> ThresholdAttacker().fit(X).predict(X)
    array([0, 0, 0, 1, 1, 1])
    """

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> ThresholdAttacker:
        """Fit to features X (n, F); y is not looked at."""
        X = validate_data(self, X, dtype=np.float64)
        self.classes_ = np.array([0, 1])
        self.mean_, self.scale_ = X.mean(0), X.std(0) + 1e-8
        mixture = GaussianMixture(2, covariance_type="tied", random_state=self.random_state)
        mixture.fit(self._mean_feature(X)[:, None])
        (low, share), (high, other) = sorted(zip(mixture.means_[:, 0], mixture.weights_, strict=True))
        self.slope_ = max(high - low, 1e-6) / mixture.covariances_[0, 0]
        self.offset_ = np.log(other / share) - self.slope_ * (low + high) / 2
        return self

    def _mean_feature(self, X: np.ndarray) -> np.ndarray:
        return ((X - self.mean_) / self.scale_).mean(1)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """The log-odds of the upper of the two distributions, (n,)."""
        check_is_fitted(self)
        return self.slope_ * self._mean_feature(validate_data(self, X, reset=False, dtype=np.float64)) + self.offset_

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Membership above the threshold, (n,)."""
        return (self.decision_function(X) > 0).astype(int)


def _likelihood_ratio(seed: int) -> BaseEstimator:
    return make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=1e-3))


def _logistic(seed: int) -> BaseEstimator:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, random_state=seed))


def _boosting(seed: int) -> BaseEstimator:
    """A mean of five boosted models of small trees, each split of a random third of the features.

    A single model of large trees turns on which of two features is ahead by the last bit.
    """
    small = {"max_leaf_nodes": 4, "max_features": 0.3, "max_bins": 64}
    boosted = HistGradientBoostingClassifier(early_stopping=False, learning_rate=0.05, **small)
    return BaggingClassifier(boosted, n_estimators=5, bootstrap=False, random_state=seed)


ATTACKERS: dict[str, Callable[[int], BaseEstimator]] = {
    **{name: lambda seed, hidden=hidden: MLPAttacker(hidden, random_state=seed) for name, hidden in STRUCTURES.items()},
    "mlp-v2": lambda seed: MLPAttacker(variant="v2", lr=V2_STEP, random_state=seed),
    "mlp-256": lambda seed: MLPAttacker((256,), random_state=seed),
    "deepsets": lambda seed: SetAttacker((128, 128), random_state=seed),
    "likelihood-ratio": _likelihood_ratio,
    "logistic": _logistic,
    "boosting": _boosting,
    UNSUPERVISED: lambda seed: ThresholdAttacker(seed),
}
"""Attackers by name: each a function from a seed to an unfitted scikit-learn classifier."""


def make_attacker(attacker: str | BaseEstimator, seed: int = 0) -> BaseEstimator:
    """An unfitted attacker: by name, or a clone of a scikit-learn classifier of your own.

    Raises:
        ValueError: no attacker has that name.
        BadInput: an object that is no scikit-learn classifier.
    """
    if isinstance(attacker, str):
        if attacker not in ATTACKERS:
            raise ValueError(f"attacker is {attacker!r}; it must be one of {', '.join(sorted(ATTACKERS))}")
        return ATTACKERS[attacker](seed)
    if not hasattr(attacker, "fit") or not (
        hasattr(attacker, "decision_function") or hasattr(attacker, "predict_proba")
    ):
        raise BadInput(f"attacker is a {type(attacker).__name__}; it must be a name or a scikit-learn classifier")
    fresh = clone(attacker)
    return fresh.set_params(random_state=seed) if "random_state" in fresh.get_params() else fresh


def log_odds(attacker: BaseEstimator, X: np.ndarray) -> np.ndarray:
    """The fitted attacker's score of each row, (n,): higher means more likely a member, 0 is its own threshold."""
    X = np.asarray(X, dtype=np.float64)
    if hasattr(attacker, "decision_function"):
        return np.asarray(attacker.decision_function(X), dtype=float)
    member = np.clip(attacker.predict_proba(X)[:, 1], 1e-12, 1 - 1e-12)
    return np.log(member) - np.log1p(-member)
