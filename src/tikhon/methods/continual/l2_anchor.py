"""L2 anchor: keep the weights near those of earlier tasks, all alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, Where, effective_weights
from tikhon.core.penalties import penalty
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Terms
from tikhon.math.fisher import anchor_penalty, anchor_pull


class L2Anchor(Method):
    """Pull weights towards where they were when the last task ended.

    Use it where a network learns tasks in sequence, or is fine-tuned, and must not forget, and no old data may be kept.
    Say `recipe.end_task()` when a task is learned (or right after loading pretrained weights); before the first such
    call training is plain. Its rivals are `tikhon.EWC`, which holds the weights that mattered more firmly than others,
    and replay of old data, which remembers better where it is allowed.

        loss = task + strength * (1/2) sum_i (theta_i - theta*_i)^2

    theta* are the weights at the last `end_task`: over several tasks there is one anchor.

    strength: at least 0; where: which parameters: the weights by default; leave out heads that belong to one task, and
    in transformers the paper anchors the attention blocks alone.

    Cost: a copy of the selected parameters and one pass over them a step.
    Reference: Smith, Tian, Halbe, Hsu, Kira 2022, arXiv 2203.17269.

    >>> recipe = tikhon.Recipe(tikhon.L2Anchor(strength=1.0))
    """

    card = Card(
        title="A Closer Look at Rehearsal-Free Continual Learning",
        authors="Smith, Tian, Halbe, Hsu, Kira",
        year=2022,
        arxiv="2203.17269",
        problems=("forgetting", "overfitting", "privacy"),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{2}\sum_i(\theta_i-\theta_i^*)^2",
        claim="With pretraining, plain L2 outperforms EWC and feature distillation without rehearsal.",
        helps="Sequences of related tasks, fine-tuning of a pretrained network, where old data may not be kept.",
        hurts="Unrelated tasks; long sequences, in which the network stiffens.",
        cost="A copy of the selected parameters, one pass over them a step.",
    )
    elementwise = True

    def __init__(self, strength: Strength = 1.0, where: Where = "weights") -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.where = where
        self.anchor = Snapshot()

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        if not self.anchor.tensors:
            return {}
        chosen = [*{one.name: one for one in step.select(self.where)}.values()]  # weight norm has two leaves a weight
        anchors = self.anchor.matching(chosen)
        distance = penalty(
            chosen,
            self.strength,
            lambda weights: anchor_penalty(weights, anchors),
            gradient=lambda weights: anchor_pull(weights, anchors),
        )
        return {"distance": distance}

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        self.anchor.take(effective_weights(step.select(self.where)))
