"""Imbalance: how unequal classes and groups are in size, and how unequally a model serves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.math.statistics import wilson_interval
from tikhon.measures.predictions import checked_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "accuracy_by_group",
    "accuracy_by_class",
    "GroupAccuracy",
    "class_counts",
    "imbalance_ratio",
    "effective_number",
]


def class_counts(labels: Tensor, classes: int | None = None) -> Tensor:
    """How many samples every class has, (K,) int64.

    labels: (n,) in [0, K); classes: K, by default one more than the largest label.

    >>> class_counts(torch.tensor([0, 2, 2]))
    tensor([1, 0, 2])
    """
    return torch.bincount(checked_labels(labels, classes), minlength=classes or 0)


def imbalance_ratio(counts: Tensor) -> float:
    """Samples of the most frequent class for every sample of the rarest, at least 1; infinite where a class has none.

    counts: (K,), not all 0 (Cui et al. 2019, arXiv 1901.05555, section 5.1).

    >>> imbalance_ratio(torch.tensor([500, 5]))
    100.0
    """
    if counts.ndim != 1 or not len(counts) or bool((counts < 0).any()) or not bool((counts > 0).any()):
        raise TikhonError(f"counts must be (K,), at least 0 and not all 0, not {counts.tolist()}.")
    return float(counts.max().double() / counts.min().double())


def effective_number(counts: Tensor, beta: float = 0.999) -> Tensor:
    """E_n = (1 - beta^n) / (1 - beta): how many samples n count for where data overlap (Cui et al. 2019, theorem 1).

    counts: n of every class, any shape, at least 0; beta: in [0, 1): 0 makes every class count 1, near 1 its samples.
    Returns E_n in the shape of counts, float64; 1 / E_n are the class-balanced weights of the paper up to their scale.

    >>> effective_number(torch.tensor([1, 1000]), beta=0.99)
    tensor([ 1.0000, 99.9957], dtype=torch.float64)
    """
    if not 0.0 <= beta < 1.0:
        raise TikhonError(f"beta must be in [0, 1), not {beta}.")
    return (1.0 - beta ** counts.double()) / (1.0 - beta)


@dataclass(frozen=True)
class GroupAccuracy:
    """The accuracy in every group of samples; where groups are classes, their recalls.

    accuracy: (G,) float64, NaN where a group has no sample; low, high: (G,), Wilson's interval of each by itself;
    count: (G,) int64; worst: (value, low, high) of the lowest accuracy, with low and high from intervals that hold for
    all groups at once (Bonferroni's): a worst group is chosen, and by itself it would look surer than it is.
    """

    accuracy: Tensor
    low: Tensor
    high: Tensor
    count: Tensor
    worst: tuple[float, float, float]

    @property
    def worst_group(self) -> int:
        """The number of the group whose accuracy is lowest, the first of several."""
        return int(self.accuracy.nan_to_num(torch.inf).argmin())

    @property
    def balanced(self) -> float:
        """The mean accuracy over groups that have samples: with classes as groups, balanced accuracy."""
        return float(self.accuracy.nanmean())

    @property
    def overall(self) -> float:
        """The share of right predictions among all samples."""
        return float((self.accuracy.nan_to_num(0.0) * self.count).sum() / self.count.sum())

    def plot(self, axes: Axes | None = None, names: Sequence[str] | None = None) -> Axes:
        """A row for every group with its interval and count, the overall accuracy as a line, the worst group in red."""
        axes = given_or_new(axes)
        rows = torch.arange(len(self.accuracy))
        full = self.count > 0
        colours = ["C3" if row == self.worst_group else "C0" for row in rows[full].tolist()]
        axes.axvline(self.overall, color="0.6", linestyle="--", label=f"all samples {100 * self.overall:.1f}%")
        axes.hlines(rows[full].numpy(), self.low[full].numpy(), self.high[full].numpy(), colors=colours)
        axes.scatter(self.accuracy[full].numpy(), rows[full].numpy(), c=colours)
        titles = [str(row) for row in rows.tolist()] if names is None else names
        axes.set_yticks(rows.tolist(), [f"{one} (n={n})" for one, n in zip(titles, self.count.tolist(), strict=True)])
        axes.invert_yaxis()
        axes.set_xlabel("accuracy")
        axes.legend(frameon=False)
        return axes


def accuracy_by_group(right: Tensor, groups: Tensor, level: float = 0.95) -> GroupAccuracy:
    """The accuracy in every group, such as those of label and background, and in the worst.

    right: (n,) bool, which predictions are right; groups: (n,) int64 from 0 on; level: the coverage of the intervals.

    >>> found = accuracy_by_group(torch.tensor([True, True, False, True]), torch.tensor([0, 0, 1, 1]))
    >>> found.accuracy, found.worst_group
    (tensor([1.0000, 0.5000], dtype=torch.float64), 1)
    """
    if right.dtype != torch.bool or right.shape != groups.shape:
        raise TikhonError(
            f"accuracy_by_group needs which predictions are right, (n,) bool, and as many groups, not "
            f"{right.dtype} of shape {tuple(right.shape)} and groups of shape {tuple(groups.shape)}."
        )
    return _by_group(right, checked_labels(groups, name="groups"), None, level)


def accuracy_by_class(
    predicted: Tensor, labels: Tensor, classes: int | None = None, level: float = 0.95
) -> GroupAccuracy:
    """The recall of every class: the share of its samples that are predicted as such; balanced accuracy, worst class.

    predicted, labels: (n,) in [0, K); classes: K, by default one more than the largest label; level: as in
    `accuracy_by_group`.

    >>> accuracy_by_class(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])).balanced
    0.75
    """
    if predicted.shape != labels.shape:
        raise TikhonError(f"There are predictions {tuple(predicted.shape)} for labels {tuple(labels.shape)}.")
    y = checked_labels(labels, classes)
    return _by_group(checked_labels(predicted, name="predictions") == y, y, classes, level)


def _by_group(right: Tensor, groups: Tensor, size: int | None, level: float) -> GroupAccuracy:
    right = right.detach().cpu()
    count = torch.bincount(groups, minlength=size or 0)
    hits = torch.bincount(groups[right], minlength=len(count)).double()
    low, high = wilson_interval(hits, count.double(), level)
    full = count > 0
    accuracy = hits / count
    at_once = 1.0 - (1.0 - level) / int(full.sum())
    ends = wilson_interval(hits[full], count[full].double(), at_once)
    worst = tuple(float(one.min()) for one in (accuracy[full], *ends))
    return GroupAccuracy(accuracy, low, high, count, (worst[0], worst[1], worst[2]))
