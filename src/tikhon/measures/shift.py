"""Shift: whether test data are from another distribution than training data, and in which features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import ks_2samp, rankdata
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.measures.samples import checked_samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["classifier_two_sample", "TwoSample", "feature_shift", "FeatureShift", "holm"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TwoSample:
    """auc: (value, low, high), how often a classifier that has not seen them puts a test sample above a training one:
    0.5 where nothing tells them apart, 1 where everything does; p_value: of the hypothesis that it is at most 0.5;
    train_scores (N,), test_scores (M,): the classifier's probability that a sample is of the test set, float64."""

    auc: tuple[float, float, float]
    p_value: float
    train_scores: Tensor
    test_scores: Tensor

    def plot(self, axes: Axes | None = None) -> Axes:
        """Histograms of both scores: the less they overlap the larger the shift; those at the right are most unlike."""
        axes = given_or_new(axes)
        for scores, label in ((self.train_scores, "train"), (self.test_scores, "test")):
            axes.hist(scores.numpy(), bins=40, range=(0.0, 1.0), density=True, alpha=0.6, label=label)
        axes.set_xlabel("probability of being a test sample")
        axes.set_ylabel("density")
        axes.set_title(f"AUC {self.auc[0]:.3f} [{self.auc[1]:.3f}, {self.auc[2]:.3f}]")
        axes.legend()
        return axes


@dataclass(frozen=True)
class FeatureShift:
    """distances: (D,), the largest difference of the two distribution functions of each feature, in [0, 1]; p_values:
    (D,), Holm's, which may be compared with a level all together; both float64. shifted: (D,) bool, which are below
    it."""

    distances: Tensor
    p_values: Tensor
    shifted: Tensor

    def plot(self, axes: Axes | None = None) -> Axes:
        """The twenty largest distances, with those that are shifted in another colour."""
        axes = given_or_new(axes)
        top = self.distances.argsort(descending=True)[:20]
        colours = ["C1" if bool(self.shifted[place]) else "0.7" for place in top]
        axes.bar(range(len(top)), self.distances[top].numpy(), color=colours)
        axes.set_xticks(range(len(top)), [str(int(place)) for place in top])
        axes.set_xlabel("feature")
        axes.set_ylabel("Kolmogorov-Smirnov distance")
        return axes


def classifier_two_sample(
    train: Tensor,
    test: Tensor,
    classifier: Literal["linear", "forest"] = "linear",
    folds: int = 5,
    seed: int = 0,
    level: float = 0.95,
) -> TwoSample:
    """Whether a classifier can tell test from training samples: the AUC on samples that it was not fitted to.

    Use it for shifts that no single feature shows. "linear" (logistic regression on standardised features) sees shifts
    of means, "forest" (100 trees) also those of spreads and of how features hang together. A large AUC says that there
    is a shift, not that it matters to your model.

    train, test: (N, ...), (M, ...), finite, at least two samples a fold each; folds: of cross-validation, at least 2;
    seed: of folds and trees; level: the coverage of the interval, in (0, 1). The AUC is the mean over folds, for the
    scores of different classifiers do not compare; its variance is DeLong's of a fold, with Nadeau and Bengio's factor
    1 / K + 1 / (K - 1), because classifiers of K folds share samples: with 1 / K alone, one test in eight of equal
    distributions has a p-value below 0.05. Source: Lopez-Paz, Oquab 2017, arXiv 1610.06545, with AUC in place of
    accuracy; DeLong, DeLong, Clarke-Pearson 1988; Nadeau, Bengio 2003.

    >>> generator = torch.Generator().manual_seed(0)
    >>> train, test = torch.randn(200, 3, generator=generator), torch.randn(100, 3, generator=generator)
    >>> found = classifier_two_sample(train, test + torch.tensor([2.0, 0.0, 0.0]))
    >>> found.auc[0] > 0.85, found.p_value < 1e-6
    (True, True)
    """
    a, b = (one.numpy() for one in checked_samples(train, test))
    if classifier not in ("linear", "forest") or folds < 2 or min(len(a), len(b)) < 2 * folds or not 0 < level < 1:
        raise TikhonError(
            "A classifier 'linear' or 'forest', at least 2 folds with 2 samples of each set, and a level in (0, 1) are "
            f"needed, not {classifier!r}, folds={folds} of {len(a)} and {len(b)} samples, level={level}."
        )
    from sklearn.model_selection import StratifiedKFold  # slow to import

    values, of_test = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    scores, areas, variances = np.zeros(len(values)), [], []
    for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(values, of_test):
        model = _classifier(classifier, seed).fit(values[fit], of_test[fit])
        scores[held] = model.predict_proba(values[held])[:, 1]
        area, variance = _auc(scores[held][of_test[held] == 0], scores[held][of_test[held] == 1])
        areas.append(area)
        variances.append(variance)
    auc = float(np.mean(areas))
    error = math.sqrt(float(np.mean(variances)) * (1.0 / folds + 1.0 / (folds - 1)))
    half = float(ndtri((1 + level) / 2)) * error
    p_value = float(ndtr((0.5 - auc) / error)) if error > 0 else float(auc <= 0.5)
    parts = torch.from_numpy(scores).split([len(a), len(b)])
    return TwoSample((auc, max(0.0, auc - half), min(1.0, auc + half)), p_value, *parts)


def feature_shift(train: Tensor, test: Tensor, level: float = 0.05) -> FeatureShift:
    """Which features have another distribution in the test set: a Kolmogorov-Smirnov test of each, with Holm's values.

    Use it to see where a shift lies. It is blind to how features hang together; `classifier_two_sample` is not.

    train, test: (N, ...), (M, ...), finite, each entry of a sample one feature; level: of the chance that any feature
    is called shifted where none is, in (0, 1), whatever their dependence.

    >>> train = torch.linspace(0.0, 1.0, 100)[:, None].repeat(1, 2)
    >>> feature_shift(train, train + torch.tensor([0.0, 0.5])).shifted
    tensor([False,  True])
    """
    a, b = (one.numpy() for one in checked_samples(train, test))
    if not 0 < level < 1:
        raise TikhonError(f"level must be in (0, 1), not {level}.")
    found = ks_2samp(a, b, axis=0)
    p_values = holm(torch.from_numpy(np.asarray(found.pvalue)))
    return FeatureShift(torch.from_numpy(np.asarray(found.statistic)), p_values, p_values < level)


def holm(p_values: Tensor) -> Tensor:
    """Holm's adjusted p-values: comparing them with a level keeps the chance of any false alarm below it.

        p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),   p_(1) <= ... <= p_(m)

    p_values: (m,), in [0, 1]. Returns (m,) in their order. Source: Holm 1979.

    >>> holm(torch.tensor([0.01, 0.04, 0.03]))
    tensor([0.0300, 0.0600, 0.0600])
    """
    values, order = p_values.sort()
    factors = torch.arange(len(values), 0, -1, dtype=values.dtype, device=values.device)
    adjusted = (factors * values).clamp_max(1.0).cummax(0).values
    return torch.empty_like(adjusted).scatter(0, order, adjusted)


def _classifier(name: str, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "linear":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return RandomForestClassifier(100, min_samples_leaf=3, random_state=seed)


def _auc(low: Array, high: Array) -> tuple[float, float]:
    """P(high > low) + P(high = low) / 2 with DeLong's variance, from ranks; two of each at the least."""
    n, m = len(low), len(high)
    ranks = rankdata(np.concatenate([low, high]))
    below = (ranks[n:] - rankdata(high)) / n  # of every high one the share of low ones below it
    above = 1.0 - (ranks[:n] - rankdata(low)) / m
    return float(below.mean()), float(below.var(ddof=1) / m + above.var(ddof=1) / n)
