"""EMA: the finished model is an exponential moving average of the weights along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked


def moved_average(averages: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * weight, in place, for all tensors at once.

    >>> average = torch.tensor([0.0])
    >>> moved_average([average], [torch.tensor([1.0])], 0.9)
    >>> average
    tensor([0.1000])
    """
    torch._foreach_lerp_(list(averages), list(weights), 1.0 - decay)


class EMA(Method):
    """Average the weights along training and deploy the average.

    Use it where the last weights are noisy: large learning rates, small batches, wrong labels. Training itself is not
    changed; `recipe.deployed()` shows the average for validation and `export` keeps it. Early on the average follows
    faster: the decay is at most (1 + n) / (10 + n) at step n.

        a <- d a + (1 - d) w

    decay: d in [0, 1]; 0.999 reaches back about a thousand steps. Only leaf parameters are averaged, no statistics.

    Cost: a copy of the weights, one pass over them a step.
    Reference: Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv 1703.01780.

    >>> recipe = tikhon.Recipe(tikhon.EMA(decay=0.99))
    """

    card = Card(
        title="Acceleration of Stochastic Approximation by Averaging",
        authors="Polyak, Juditsky",
        year=1992,
        arxiv="",
        problems=("overfitting", "noisy-labels", "stability"),
        formula=r"a_{n+1} = d\,a_n + (1-d)\,w_n",
        claim="The average of the iterates converges faster and with less variance than the last iterate.",
        helps="Noisy last weights: large learning rates, small batches.",
        hurts="Very short training; batch norm statistics are those of the last weights.",
        cost="A copy of the weights and one pass over them a step.",
        neutral="any (training is plain, only the exported weights differ)",
    )
    slots = {"after_step": "average"}
    elementwise = True

    def __init__(self, decay: Strength = 0.999) -> None:
        super().__init__()
        self.decay = checked("decay", decay, low=0.0, high=1.0)
        self.average = Snapshot()

    def after_step(self, model: nn.Module, step: Step) -> None:
        chosen = step.select("all")
        if not self.average.tensors:
            self.average.take({one.name: one.leaf for one in chosen})
            return
        warm = (1.0 + step.number) / (10.0 + step.number)
        decay = min(step.value(self.decay), warm)
        moved_average(self.average.matching(chosen), [one.leaf for one in chosen], decay)

    def averages(self) -> Mapping[str, Tensor]:
        return self.average.tensors
