"""Robustness to common corruptions: how much accuracy is left as inputs get noisier, more blurred or more turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.core.passes import evaluating
from tikhon.measures.predictions import checked_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["corruption_robustness", "CorruptionRobustness"]

Corruption = Tensor | Callable[[Tensor], Tensor]
"""The corrupted inputs, or what makes them of the clean ones."""


@dataclass(frozen=True)
class CorruptionRobustness:
    """Accuracy on clean inputs and under corruptions.

    clean: in [0, 1]; accuracy: by the corruption's name, one number a severity, (S,) float64, mildest first.
    """

    clean: float
    accuracy: Mapping[str, Tensor]

    @property
    def mean_accuracy(self) -> float:
        """The mean over corruptions of the mean over severities, in [0, 1]."""
        return float(torch.stack([one.mean() for one in self.accuracy.values()]).mean())

    @property
    def retained(self) -> float:
        """Relative robustness: mean accuracy under corruption for every part of clean accuracy; NaN if that is 0."""
        return self.mean_accuracy / self.clean if self.clean else float("nan")

    def corruption_error(self, baseline: CorruptionRobustness) -> float:
        """mCE: errors relative to those of a baseline, averaged over corruptions; 1 is as robust, below is more so.

            mean_c (sum_s E_cs / sum_s E*_cs)   (Hendrycks, Dietterich 2019, arXiv 1903.12261, section 4)

        baseline: another model under the same corruptions.
        """
        self._refuse_others(baseline)
        parts = [float((1 - one).sum() / (1 - baseline.accuracy[name]).sum()) for name, one in self.accuracy.items()]
        return sum(parts) / len(parts)

    def relative_corruption_error(self, baseline: CorruptionRobustness) -> float:
        """Relative mCE: as `corruption_error`, of what corruptions add to the error on clean inputs."""
        self._refuse_others(baseline)
        parts = [
            float((self.clean - one).sum() / (baseline.clean - baseline.accuracy[name]).sum())
            for name, one in self.accuracy.items()
        ]
        return sum(parts) / len(parts)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Accuracy by severity, a line for every corruption; severity 0 is the clean accuracy."""
        axes = given_or_new(axes)
        for name, one in self.accuracy.items():
            axes.plot(range(len(one) + 1), [self.clean, *one.tolist()], "o-", label=name)
        axes.axhline(self.clean, color="0.6", linestyle="--")
        axes.set_xticks(range(1 + max(map(len, self.accuracy.values()))))
        axes.set(xlabel="severity", ylabel="accuracy", ylim=(0, 1.02))
        axes.legend(frameon=False)
        return axes

    def _refuse_others(self, baseline: CorruptionRobustness) -> None:
        mine, others = ({name: len(one) for name, one in each.accuracy.items()} for each in (self, baseline))
        if mine != others:
            raise TikhonError(f"The baseline was tried on other corruptions: {others}, not {mine} (severities).")


def corruption_robustness(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    corruptions: Mapping[str, Sequence[Corruption]],
    batch_size: int = 256,
) -> CorruptionRobustness:
    """Accuracy of a classifier on inputs as they are and corrupted, by kind and severity.

    Use it on test data, with corruptions that training did not see. It says nothing of attacks, which look for the
    worst input nearby.

    model: a module, taken in eval mode, or any function from inputs to scores (n, K); inputs: (n, ...); labels: (n,);
    corruptions: by name the severities, mildest first, each the corrupted inputs, shaped as these, or a function that
    makes them, such as those of `tikhon.data` (`partial(rotate, degrees=15)`, `partial(gaussian_noise, scale=0.2,
    generator=generator)`, `partial(blur, sigma=1.0)`); batch_size: inputs at a time.
    Reference: Hendrycks, Dietterich 2019, arXiv 1903.12261.

    >>> x, y = torch.tensor([[1.0, 0.0], [0.2, 0.0]]), torch.tensor([0, 0])
    >>> found = corruption_robustness(nn.Identity(), x, y, {"shift": [lambda x: x - torch.tensor([0.5, 0.0])]})
    >>> found.clean, found.mean_accuracy
    (1.0, 0.5)
    """
    y = checked_labels(labels)
    if len(inputs) != len(y):
        raise TikhonError(f"{len(inputs)} inputs do not fit {len(y)} labels.")
    if not corruptions or not all(len(one) for one in corruptions.values()):
        raise TikhonError("There is nothing to be robust to: give at least one corruption, each with one severity.")

    def accuracy(some: Tensor) -> float:
        if some.shape != inputs.shape:
            raise TikhonError(f"A corruption gives inputs {tuple(some.shape)} of what were {tuple(inputs.shape)}.")
        predicted = torch.cat([model(rows).argmax(1).cpu() for rows in some.split(batch_size)])
        return float((predicted == y).double().mean())

    passing: AbstractContextManager[None] = evaluating(model) if isinstance(model, nn.Module) else torch.no_grad()
    with passing:
        clean = accuracy(inputs)
        found = {
            name: torch.tensor(
                [accuracy(one if isinstance(one, Tensor) else one(inputs)) for one in severities], dtype=torch.float64
            )
            for name, severities in corruptions.items()
        }
    return CorruptionRobustness(clean, found)
