"""SWA: the finished model is the plain average of the weights along the last part of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot
from tikhon.core.step import Step
from tikhon.core.strength import checked


class SWA(Method):
    """Average the weights of the last part of training, all alike, and deploy the average.

    Use it at the end of an otherwise finished training: keep the learning rate constant and fairly large over the last
    quarter, or cyclic, so that the weights go on moving about the same valley; their average lies in its flat middle
    and generalises better than any of them. Where the learning rate falls to zero there is little to average. Training
    itself is not changed; `recipe.deployed()` shows the average for validation and `export` keeps it.

        a <- (n a + w) / (n + 1),   n: how many weights have been averaged

    Only leaf parameters are averaged. Batch norm's running statistics are those of the last weights and do not suit the
    average: pass training data through the finished model once, `torch.optim.swa_utils.update_bn(loader, model)`.

    start: the share of training after which averaging begins, in [0, 1), 0.75; every: "epoch" takes the weights at each
    `recipe.end_epoch()`, as in the paper, "step" after every optimizer step. With a cyclic learning rate end an epoch
    with each cycle. Before anything is averaged the deployed weights are the trained ones.

    Cost: a copy of the weights; a pass over them each time.
    Reference: Izmailov, Podoprikhin, Garipov, Vetrov, Wilson 2018, arXiv 1803.05407.

    >>> recipe = tikhon.Recipe(tikhon.SWA(start=0.75))
    """

    card = Card(
        title="Averaging Weights Leads to Wider Optima and Better Generalization",
        authors="Izmailov, Podoprikhin, Garipov, Vetrov, Wilson",
        year=2018,
        arxiv="1803.05407",
        problems=("overfitting", "noisy-labels", "stability"),
        formula=r"a_{n+1} = (n\,a_n + w)/(n+1)",
        claim="The average of weights along SGD with a constant or cyclic rate generalises better than the last.",
        helps="The last part of training with a learning rate that does not fall to zero.",
        hurts="Learning rates that fall to zero, which leave nothing to average; batch norm without update_bn.",
        cost="A copy of the weights, and a pass over them each time.",
        neutral="any (training is plain, only the exported weights differ)",
    )
    slots = {"after_step": "average"}
    elementwise = True
    needs = frozenset({"length"})

    def __init__(self, start: float = 0.75, every: Literal["epoch", "step"] = "epoch") -> None:
        super().__init__()
        if not isinstance(checked("start", start, low=0.0, high=0.9999), float):
            raise TikhonError(f"start is a share of training, not {start!r}.")
        if every not in ("epoch", "step"):
            raise TikhonError(f"every is 'epoch' or 'step', not {every!r}.")
        self.start, self.every = start, every
        self.average = Snapshot()
        self.count = 0

    def after_step(self, model: nn.Module, step: Step) -> None:
        if self.every == "step":
            self._take(step)

    def epoch_end(self, step: Step) -> None:
        if self.every == "epoch":
            self._take(step)

    def _take(self, step: Step) -> None:
        if step.progress < self.start:
            return
        chosen = step.select("all")
        if self.count == 0:
            self.average.take({one.key: one.leaf for one in chosen})
        else:
            averages = [self.average.tensors[one.key] for one in chosen]
            torch._foreach_lerp_(averages, [one.leaf.detach() for one in chosen], 1.0 / (self.count + 1))
        self.count += 1

    def averages(self) -> Mapping[str, Tensor]:
        return self.average.tensors

    def get_extra_state(self) -> dict[str, Any]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
