"""Proper scores: one number that rewards calibrated and sharp predictions, and what it is made of.

Everything here takes probabilities (n, K), whose rows sum to 1, and labels (n,), and gives plain numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.figures import given_or_new
from tikhon.math.bins import binned_means
from tikhon.measures.calibration import by_class, check_bins
from tikhon.measures.predictions import checked_predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["brier_score", "brier_decomposition", "BrierDecomposition", "negative_log_likelihood"]


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of -log p_y, in nats, at least 0; infinite where a label was given the probability 0.

    >>> round(negative_log_likelihood(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([1, 0])), 4)
    0.3466
    """
    p, y = checked_predictions(probabilities, labels)
    return float(F.nll_loss(p.log(), y))


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of ||p - onehot(y)||^2, in [0, 2] (Brier 1950). With two classes twice what is counted for one of them.

    >>> brier_score(torch.tensor([[0.5, 0.5]]), torch.tensor([1]))
    0.5
    """
    p, y = checked_predictions(probabilities, labels)
    return float((p - F.one_hot(y, p.shape[1])).square().sum(1).mean())


@dataclass(frozen=True)
class BrierDecomposition:
    """The Brier score in parts: score = reliability - resolution + uncertainty + within.

    reliability: squared distance of probabilities from frequencies, 0 if calibrated; resolution: how far frequencies
    differ from bin to bin, more is better; uncertainty: the score of who knows the frequencies of the classes alone;
    within: what differences within bins do to the score, small where bins are.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float

    def plot(self, axes: Axes | None = None) -> Axes:
        """From the uncertainty down to the score: what resolution takes off, and what the others add."""
        axes = given_or_new(axes)
        names = ["uncertainty", "resolution", "reliability", "within bins", "Brier score"]
        steps = [self.uncertainty, -self.resolution, self.reliability, self.within]
        starts = [sum(steps[:place]) for place in range(len(steps))]
        colours = ["0.6", "C2", "C3", "C1", "C0"]
        axes.barh(names, [*steps, self.score], left=[*starts, 0.0], color=colours)
        axes.invert_yaxis()
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel("Brier score")
        return axes


def brier_decomposition(
    probabilities: Tensor, labels: Tensor, bins: int = 15, equal_mass: bool = False
) -> BrierDecomposition:
    """Murphy's decomposition of the Brier score, of every class's probability in bins, summed over classes.

    bins, equal_mass: as for `reliability`. Exact without its last part where probabilities take one value a bin.
    Sources: Murphy 1973; the part within bins: Stephenson, Coelho, Jolliffe 2008.
    """
    p, y = checked_predictions(probabilities, labels)
    check_bins(bins)
    reliability = resolution = 0.0
    for scores, hits in by_class(p, y):
        score, frequency, count = binned_means(scores, hits, bins, equal_mass)
        share = count.double() / len(y)
        gaps = torch.stack([score - frequency, frequency - hits.mean(1, keepdim=True)]).square()
        first, second = torch.where(count > 0, share * gaps, 0.0).sum((1, 2)).tolist()
        reliability += first
        resolution += second
    base = torch.bincount(y, minlength=p.shape[1]).double() / len(y)
    uncertainty = float((base * (1 - base)).sum())
    total = brier_score(p, y)
    return BrierDecomposition(
        score=total,
        reliability=reliability,
        resolution=resolution,
        uncertainty=uncertainty,
        within=total - reliability + resolution - uncertainty,
    )
