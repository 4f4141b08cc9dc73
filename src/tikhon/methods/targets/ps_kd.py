"""PS-KD: the network's own predictions of the epoch before soften its targets, more and more."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked, linear
from tikhon.core.target import Part, Target

RISING = linear(0.0, 0.8, by="epoch")


def softened(targets: Tensor, predictions: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) y + alpha p (Kim et al. 2021, arXiv 2006.12000, section 3).

    targets, predictions: (B, K), rows sum to 1; alpha: in [0, 1]. Returns (B, K), rows sum to 1.

    >>> softened(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), 0.5)
    tensor([[0.7500, 0.2500]])
    """
    return (1.0 - alpha) * targets + alpha * predictions


def known(predictions: Tensor, targets: Tensor) -> Tensor:
    """Predictions, and where there are none (a row of zeros) the targets. Both (B, K); returns (B, K)."""
    return torch.where(predictions.sum(1, keepdim=True) > 0, predictions, targets.to(predictions.dtype))


class PSKD(Method):
    """Soften each target with what the network predicted for the sample one epoch ago.

    Use it for better calibrated classifiers, at no loss of accuracy. Not with few epochs, or where a sample is seen
    only once.

        y_t = (1 - a_t) y + a_t p_{t-1}(x),   a_t = a_T t / T

    alpha: a_t, in [0, 1]; by default rises to 0.8 in the last epoch, which counts the current epoch in, as published.
    During the first epoch nothing is known and the label stays; so it does for samples not seen yet. One left out of an
    epoch keeps its latest prediction. Under mixing each part has its own, made on the clean inputs. The training loop
    must say when an epoch ends (`recipe.end_epoch()`).

    Cost: two memories of samples x classes; with mixing one extra forward pass. Needs sample ids.
    Reference: Kim, Ji, Yoon, Hwang 2021, arXiv 2006.12000.

    >>> recipe = tikhon.Recipe(tikhon.PSKD(alpha=tikhon.linear(0.0, 0.8, by="epoch")))
    """

    card = Card(
        title="Self-Knowledge Distillation with Progressive Refinement of Targets",
        authors="Kim, Ji, Yoon, Hwang",
        year=2020,
        arxiv="2006.12000",
        problems=("overfitting", "calibration"),
        formula=r"y_t = (1-\alpha_t)\,y + \alpha_t\,p_{t-1}(x),\quad \alpha_t = \alpha_T\, t/T",
        claim="Better accuracy and better confidence estimates, in calibration as well as in ranking.",
        helps="Over-confident classifiers trained for many epochs.",
        hurts="Short training; under-fitting models, whose mistakes it repeats.",
        cost="Two memories of samples x classes; with mixing one extra forward pass.",
        neutral="alpha=0",
    )
    slots = {"targets": "distil"}
    needs = frozenset({"ids", "classes"})

    def __init__(self, alpha: Strength = RISING) -> None:
        super().__init__()
        self.alpha = checked("alpha", alpha, low=0.0, high=1.0)
        self.previous = PerSampleMemory()  # as the epoch before left it: what this epoch's targets use
        self.current = PerSampleMemory()

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        assert target.ids is not None
        if output.ndim != 2:
            raise TikhonError(f"{self.key} remembers one prediction a sample, (B, K); not {tuple(output.shape)}.")
        self.current.write(target.ids, step.loss.probabilities(step.clean(output)))

    def targets(self, output: Tensor, target: Target, step: Step) -> Target:
        alpha = step.value(self.alpha)
        if alpha == 0.0 or self.previous.table is None:
            return target
        classes = output.shape[1]

        def taught(part: Part) -> Tensor:
            assert part.ids is not None
            return known(self.previous.read(part.ids), part.dense(classes))

        return target.distil(taught, alpha, classes)

    def epoch_end(self, step: Step) -> None:
        if self.current.table is not None:
            self.previous.table = self.current.table.clone()
