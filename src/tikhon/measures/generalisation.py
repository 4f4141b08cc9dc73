"""The generalisation gap: how much worse a model is on new data than on the data it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.math.statistics import (
    Estimate,
    mean_interval,
    newcombe_interval,
    paired_difference,
    share_interval,
    welch_difference,
)
from tikhon.measures.predictions import checked_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["generalisation_gap", "gap_over_seeds", "GeneralisationGap"]


@dataclass(frozen=True)
class GeneralisationGap:
    """What a model reaches on training and on test data, and the gap between: each (value, low, high).

    gap: above 0 where the model is worse on test data, train - test of a metric and test - train of a loss; low, high:
    None where one number has no interval; lower_is_better: whether the numbers are losses; seeds: train and test of
    every seed, (S, 2), where the gap is one over seeds.
    """

    train: Estimate
    test: Estimate
    gap: Estimate
    lower_is_better: bool
    seeds: Tensor | None = None

    def plot(self, axes: Axes | None = None) -> Axes:
        """Train beside test with their intervals, a line for every seed where there are seeds, the gap in the title."""
        axes = given_or_new(axes)
        if self.seeds is not None:
            axes.plot([0, 1], self.seeds.T.numpy(), color="0.7", linewidth=0.8)
        axes.plot([0, 1], [self.train[0], self.test[0]], "o-", color="C0")
        for place, (_, low, high) in enumerate((self.train, self.test)):
            if low is not None and high is not None:
                axes.vlines(place, low, high, color="C0")
        value, low, high = self.gap
        axes.set_title(f"gap {value:.3g}" + ("" if low is None else f" [{low:.3g}, {high:.3g}]"))
        axes.set_xticks([0, 1], ["train", "test"])
        axes.set_xlim(-0.4, 1.4)
        axes.set_ylabel("loss" if self.lower_is_better else "metric")
        return axes


def generalisation_gap(train: Tensor, test: Tensor, level: float = 0.95) -> GeneralisationGap:
    """The gap of one model, from what it does with every sample.

    Use it for a model in hand. For what a way of training does, train several models and take `gap_over_seeds`: this
    interval knows nothing of other seeds.

    train, test: (n,) and (m,), bool where they say which predictions are right, otherwise losses, one a sample, of the
    model in eval mode and without augmentation; level: the coverage of the intervals, in (0, 1). Shares of right
    predictions get Wilson's intervals and Newcombe's for their difference, losses Student's and Welch's.

    >>> found = generalisation_gap(torch.ones(100, dtype=torch.bool), torch.arange(50) < 40)
    >>> print("{:.2f} [{:.2f}, {:.2f}]".format(*found.gap))
    0.20 [0.10, 0.33]
    """
    if (train.dtype == torch.bool) != (test.dtype == torch.bool):
        raise TikhonError(f"train and test must be of one kind, bool or losses, not {train.dtype} and {test.dtype}.")
    right = train.dtype == torch.bool
    if not right and not (train.is_floating_point() and test.is_floating_point()):
        raise TikhonError(
            f"Give which predictions are right, as bool, or losses, as floats, not {train.dtype} and {test.dtype}."
        )
    a, b = checked_rows(train, "train"), checked_rows(test, "test")
    if not right:
        gap = welch_difference(b.numpy(), a.numpy(), level)
        return GeneralisationGap(mean_interval(a.numpy(), level), mean_interval(b.numpy(), level), gap, True)
    low, high = newcombe_interval(a.sum(), _size(a), b.sum(), _size(b), level)
    gap = float(a.mean() - b.mean()), float(low), float(high)
    return GeneralisationGap(_share(a, level), _share(b, level), gap, False)


def gap_over_seeds(
    train: Tensor, test: Tensor, lower_is_better: bool = False, level: float = 0.95
) -> GeneralisationGap:
    """The mean gap of a way of training, from a metric of every seed on both splits, with paired t intervals.

    train, test: (S,), of the same seeds in the same order; lower_is_better: whether the metric is a loss or an error;
    level: as in `generalisation_gap`. One seed has no interval.

    >>> print("{:.2f} [{:.2f}, {:.2f}]".format(*gap_over_seeds(torch.ones(3), torch.tensor([0.8, 0.7, 0.9])).gap))
    0.20 [-0.05, 0.45]
    """
    a, b = checked_rows(train, "train"), checked_rows(test, "test")
    first, second = (b, a) if lower_is_better else (a, b)
    gap = paired_difference(first.numpy(), second.numpy(), level)
    train_mean, test_mean = (mean_interval(one.numpy(), level) for one in (a, b))
    return GeneralisationGap(train_mean, test_mean, gap, lower_is_better, seeds=torch.stack([a, b], 1))


def _size(values: Tensor) -> Tensor:
    return values.new_tensor(len(values))


def _share(right: Tensor, level: float) -> Estimate:
    return share_interval(int(right.sum()), len(right), level)
