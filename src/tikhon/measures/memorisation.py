"""Memorisation: which labels a model fits only because it has seen them, and how many wrong ones it has taken in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.math.statistics import newcombe_interval, share_interval
from tikhon.measures.predictions import checked_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Share = tuple[float, float, float]
"""A value and the two ends of its interval."""

__all__ = ["memorisation", "memorisation_scores", "Memorisation", "wrong_labels_fitted", "WrongLabels"]


@dataclass(frozen=True)
class Memorisation:
    """How far every sample's label is fitted only where the sample was trained on.

    scores: (N,) float64 in [-1, 1], near 0 where others of its kind teach the label as well, near 1 where it is
    learned by heart; NaN where a sample was never trained on, or always. low, high: (N,), Newcombe's interval of each;
    trained, held_out: (N,) int64, how many models saw the sample and how many did not.
    """

    scores: Tensor
    low: Tensor
    high: Tensor
    trained: Tensor
    held_out: Tensor

    def plot(self, axes: Axes | None = None) -> Axes:
        """A histogram of the scores, on a logarithmic scale, because most are near 0."""
        axes = given_or_new(axes)
        axes.hist(self.scores[self.scores.isfinite()].numpy(), bins=40, range=(-1.0, 1.0), log=True)
        axes.set_xlabel("memorisation score")
        axes.set_ylabel("samples")
        return axes


def memorisation_scores(correct: Tensor, in_train: Tensor) -> Tensor:
    """Accuracy on every sample of the models that were trained on it, less that of the models that were not, (N,).

        mem_i = P[h(x_i) = y_i | i in S] - P[h(x_i) = y_i | i not in S]

    correct: (R, N) bool, what R models get right of N samples, by the labels they were trained on; in_train: (R, N)
    bool, what each was trained on, random subsets of one size. Returns float64 in [-1, 1], NaN where one of the two has
    no model. Source: Feldman, Zhang 2020, arXiv 2008.03703, equation 1 and algorithm 1, which trains 2,000 models, each
    on 70% of the samples.

    >>> right = torch.tensor([[True, True], [True, False]])
    >>> memorisation_scores(right, in_train=torch.tensor([[True, True], [False, False]]))
    tensor([0., 1.], dtype=torch.float64)
    """
    inside, outside, right_inside, right_outside = _counts(correct, in_train)
    return right_inside / inside - right_outside / outside


def memorisation(correct: Tensor, in_train: Tensor, level: float = 0.95) -> Memorisation:
    """`memorisation_scores` with an interval for every sample.

    Use it to find atypical and wrongly labelled samples; it takes many trainings. With R models on 70% of the samples
    the interval of a score is about 2 / sqrt(R / 5) wide at the most.

    correct, in_train: as above; level: the coverage of each interval, in (0, 1).

    >>> right = torch.tensor([[True], [True], [False], [False]])
    >>> memorisation(right, in_train=right).scores
    tensor([1.], dtype=torch.float64)
    """
    scores = memorisation_scores(correct, in_train)
    inside, outside, right_inside, right_outside = _counts(correct, in_train)
    low, high = newcombe_interval(right_inside, inside, right_outside, outside, level)
    return Memorisation(scores, low, high, inside.long(), outside.long())


def _counts(correct: Tensor, in_train: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Models that were trained on a sample and that were not, and how many of each are right; (N,) float64 each."""
    if correct.ndim != 2 or correct.shape != in_train.shape or not correct.numel():
        raise TikhonError(
            f"correct and in_train must be (R, N), models by samples, not {tuple(correct.shape)} and "
            f"{tuple(in_train.shape)}."
        )
    if correct.dtype != torch.bool or in_train.dtype != torch.bool:
        raise TikhonError(f"correct and in_train must be bool, not {correct.dtype} and {in_train.dtype}.")
    right, inside = correct.detach().cpu(), in_train.detach().cpu()
    counts = (inside, ~inside, right & inside, right & ~inside)
    a, b, c, d = (one.sum(0).double() for one in counts)
    return a, b, c, d


@dataclass(frozen=True)
class WrongLabels:
    """What a model says of the samples whose label is wrong: each share as (value, low, high), Wilson's interval.

    fitted: the wrong label; resisted: the clean one; other: a third class; count: how many such samples there are.
    """

    fitted: Share
    resisted: Share
    other: Share
    count: int

    def plot(self, axes: Axes | None = None) -> Axes:
        """The three shares as bars with their intervals."""
        axes = given_or_new(axes)
        for place, (value, low, high) in enumerate((self.fitted, self.resisted, self.other)):
            axes.bar(place, value, color="C0")
            axes.vlines(place, low, high, color="0.2")
        axes.set_xticks(range(3), ["wrong label", "clean label", "another"])
        axes.set_ylabel(f"share of {self.count} samples")
        return axes


def wrong_labels_fitted(predicted: Tensor, given: Tensor, clean: Tensor, level: float = 0.95) -> WrongLabels:
    """The share of wrong training labels that a model has taken in, and what it says of the others.

    predicted: (N,) classes that the model predicts for its training samples, in eval mode; given: (N,) labels it was
    trained on; clean: (N,) true labels; level: the coverage of the intervals, in (0, 1). Raises `TikhonError` where no
    label is wrong. Of two models compare `fitted` at the same `count`.

    >>> given, clean = torch.tensor([1, 1, 1, 0]), torch.tensor([0, 0, 0, 0])
    >>> wrong_labels_fitted(torch.tensor([1, 0, 1, 0]), given, clean).fitted[0]
    0.6666666666666666
    """
    labels = [checked_labels(*one) for one in ((predicted, None, "predicted"), (given, None, "given"), (clean,))]
    says, told, true = labels
    if not says.shape == told.shape == true.shape:
        raise TikhonError(f"predicted, given and clean differ in length: {len(says)}, {len(told)} and {len(true)}.")
    wrong = told != true
    count = int(wrong.sum())
    if not count:
        raise TikhonError("No given label differs from the clean one, so that nothing wrong can be fitted.")
    fitted, resisted = (int((says == one)[wrong].sum()) for one in (told, true))
    a, b, c = (share_interval(one, count, level) for one in (fitted, resisted, count - fitted - resisted))
    return WrongLabels(a, b, c, count)
