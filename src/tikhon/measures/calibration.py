"""Calibration: whether predictions of 90% are right in nine cases of ten.

Everything here takes probabilities (n, K), whose rows sum to 1, and labels (n,), and gives plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.math.bins import binned_means
from tikhon.math.statistics import wilson_interval
from tikhon.measures.predictions import checked_predictions, given_predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "reliability",
    "Reliability",
    "PlainReliability",
    "expected_calibration_error",
    "maximum_calibration_error",
    "classwise_calibration_error",
    "adaptive_calibration_error",
    "debiased_calibration_error",
]

NUMBERS_AT_ONCE = 2**22
"""How many probabilities are put into bins at a time."""


class PlainReliability(TypedDict):
    """A reliability diagram ready for JSON: of every bin mean confidence and accuracy (None if empty), and count."""

    confidence: list[float | None]
    accuracy: list[float | None]
    count: list[int]


@dataclass(frozen=True)
class Reliability:
    """How often predictions of a given confidence are right, by bins of confidence.

    confidence, accuracy: (M,) float64, means of the samples of every bin, NaN where it is empty; count: (M,) int64.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def expected_error(self) -> float:
        """ECE: the mean distance of accuracy from confidence, bins weighted by their samples; in [0, 1]."""
        return float((self._gaps() * self.count / self.count.sum()).sum())

    @property
    def maximum_error(self) -> float:
        """MCE: the largest distance of accuracy from confidence among bins that are not empty; in [0, 1]."""
        return float(self._gaps().max())

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy, in [-1, 1]; at most `expected_error` in size."""
        return float((self._filled(self.confidence - self.accuracy) * self.count / self.count.sum()).sum())

    def intervals(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Wilson's interval of the accuracy of every bin: low and high, (M,); [0, 1] where a bin is empty."""
        return wilson_interval(self._filled(self.accuracy * self.count), self.count.double(), level)

    def plain(self) -> PlainReliability:
        """The same in lists of plain numbers."""
        full = self.count.tolist()
        confidence, accuracy = (
            [mean if n else None for mean, n in zip(means.tolist(), full, strict=True)]
            for means in (self.confidence, self.accuracy)
        )
        return PlainReliability(confidence=confidence, accuracy=accuracy, count=full)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Accuracy against confidence with 95% intervals, dots as large as their bin's share, and the diagonal."""
        axes = given_or_new(axes)
        full = self.count > 0
        low, high = (end[full].numpy() for end in self.intervals())
        confidence, accuracy, count = (one[full].numpy() for one in (self.confidence, self.accuracy, self.count))
        axes.plot([0, 1], [0, 1], linestyle="--", color="0.6", label="calibrated")
        axes.vlines(confidence, low, high, color="C0", alpha=0.5)
        axes.plot(confidence, accuracy, color="C0", label=f"ECE {100 * self.expected_error:.1f}%")
        axes.scatter(confidence, accuracy, s=10 + 150 * count / count.sum(), color="C0")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
        axes.legend(loc="upper left", frameon=False)
        return axes

    def _gaps(self) -> Tensor:
        return self._filled((self.confidence - self.accuracy).abs())

    def _filled(self, values: Tensor) -> Tensor:
        return torch.where(self.count > 0, values, 0.0)


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15, equal_mass: bool = False) -> Reliability:
    """The reliability diagram of the predicted class (Guo et al. 2017, arXiv 1706.04599, section 2).

    probabilities: (n, K); labels: (n,) in [0, K); bins: M; equal_mass: whether bins hold as many samples each, rather
    than bin m the confidences, that is largest probabilities, in ((m - 1) / M, m / M]. Equal confidences share a bin.

    >>> diagram = reliability(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]), bins=2)
    >>> diagram.accuracy, diagram.expected_error
    (tensor([   nan, 0.5000], dtype=torch.float64), 0.25)
    """
    p, y = given_predictions(probabilities, labels)
    check_bins(bins)
    scores, hits, count = binned_means(*_top(p, y), bins, equal_mass)
    return Reliability(confidence=scores[0], accuracy=hits[0], count=count[0])


def expected_calibration_error(
    probabilities: Tensor, labels: Tensor, bins: int = 15, equal_mass: bool = False
) -> float:
    """ECE = sum_m n_m / n |accuracy_m - confidence_m|, in [0, 1] (Guo et al. 2017, arXiv 1706.04599, equation 3).

    Arguments as for `reliability`. Biased upwards, the more so the fewer samples a bin has: compare it at equal n and
    bins only, or take `debiased_calibration_error`.

    >>> expected_calibration_error(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))
    0.25
    """
    return reliability(probabilities, labels, bins, equal_mass).expected_error


def maximum_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15, equal_mass: bool = False) -> float:
    """MCE = max_m |accuracy_m - confidence_m| over bins with samples, in [0, 1] (Guo et al. 2017, equation 5).

    Arguments as for `reliability`. One bin decides it: with `equal_mass` at least one that is well filled.
    """
    return reliability(probabilities, labels, bins, equal_mass).maximum_error


def classwise_calibration_error(
    probabilities: Tensor, labels: Tensor, bins: int = 15, equal_mass: bool = False
) -> float:
    """(1/K) sum_k sum_m n_km / n |frequency_km - mean probability_km|: the ECE of every class's probability, averaged.

    It sees all probabilities of a prediction, not the largest alone. Arguments as for `reliability`; bins are made
    class by class. In [0, 1]; with many classes most bins hold probabilities near 0, and the number is small.
    Source: the static calibration error of Nixon et al. 2019, arXiv 1904.01685; Kull et al. 2019, arXiv 1910.12656.
    """
    p, y = checked_predictions(probabilities, labels)
    check_bins(bins)
    total = 0.0
    for scores, hits in by_class(p, y):
        score, frequency, count = binned_means(scores, hits, bins, equal_mass)
        total += float(torch.where(count > 0, count * (score - frequency).abs(), 0.0).sum())
    return total / p.numel()


def adaptive_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """ACE of Nixon et al. 2019, arXiv 1904.01685: `classwise_calibration_error` with bins of equal mass.

    Where n is no multiple of the bins, these are weighted by their samples (in the paper equally).
    """
    return classwise_calibration_error(probabilities, labels, bins, equal_mass=True)


def debiased_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15, equal_mass: bool = True) -> float:
    """Root of the squared calibration error without its bias from few samples (Kumar et al. 2019, arXiv 1909.10155).

        sqrt(max(0, sum_m n_m / n ((a_m - c_m)^2 - a_m (1 - a_m) / (n_m - 1))))

    with accuracy a_m and mean confidence c_m of bin m: the second term is the variance of a_m. Arguments as for
    `reliability`. In [0, 1]; with many samples at least the ECE of the same bins. A bin with one sample has no variance
    and is left out.
    """
    diagram = reliability(probabilities, labels, bins, equal_mass)
    full = diagram.count > 1
    confidence, accuracy, count = (one[full] for one in (diagram.confidence, diagram.accuracy, diagram.count))
    squares = (accuracy - confidence).square() - accuracy * (1 - accuracy) / (count - 1)
    return math.sqrt(max(0.0, float((count * squares).sum() / diagram.count.sum())))


def _top(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How sure every prediction is and whether it is right, both (1, n) float64."""
    confidence, predicted = p.max(1)
    return confidence[None].double(), (predicted == y)[None].double()


def by_class(p: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A few classes at a time: their probabilities and whether they are the label, both (classes, n)."""
    some = max(1, NUMBERS_AT_ONCE // len(y))
    for classes in torch.arange(p.shape[1]).split(some):
        yield p[:, classes].T.contiguous(), (y == classes[:, None]).double()


def check_bins(bins: int) -> None:
    if bins < 1:
        raise TikhonError(f"bins is {bins}; calibration needs at least one bin.")
