"""L2 anchor: keep the weights near those of earlier tasks, all alike or as far as each mattered (EWC)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.fisher import fisher_diagonal
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, Where, effective_weights
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.fisher import anchor_penalty


class L2Anchor(Method):
    """Pull weights towards where they were when the last task ended.

    Use it where a network learns tasks in sequence, or is fine-tuned, and must not forget, and no old data may be kept.
    Say `recipe.end_task()` when a task is learned (or right after loading pretrained weights); before the first such
    call training is plain. Its rival is replay of old data, which remembers better where it is allowed.

        loss = task + strength * (1/2) sum_i F_i (theta_i - theta*_i)^2

    theta* are the weights at the last `end_task`. fisher=False: F = 1. fisher=True is elastic weight consolidation:
    F is the diagonal of the empirical Fisher information, the mean squared gradient of the loss of single samples of
    the task with their observed labels, model in eval mode; give the data: `recipe.end_task(loader)`. Over several
    tasks there is one anchor, at the last weights, and F is summed over the tasks (online EWC, Schwarz et al. 2018,
    arXiv 1805.06370, without decay), so memory does not grow. Under several processes give every one the same data.

    strength: at least 0; Fisher values are small, so there 1e2 to 1e5 is usual; where: which parameters: the weights by
    default; leave out heads that belong to one task, and in transformers the paper anchors the attention blocks alone;
    fisher: whether the distances are weighted by the Fisher information.

    Cost: one or two copies of the selected parameters and one pass over them a step; the Fisher costs about an epoch's
    gradients at the end of a task.
    Reference: Smith, Tian, Halbe, Hsu, Kira 2022, arXiv 2203.17269; EWC is Kirkpatrick et al. 2017, arXiv 1612.00796.

    >>> recipe = tikhon.Recipe(tikhon.L2Anchor(strength=1.0))
    """

    card = Card(
        title="A Closer Look at Rehearsal-Free Continual Learning",
        authors="Smith, Tian, Halbe, Hsu, Kira",
        year=2022,
        arxiv="2203.17269",
        problems=("forgetting", "overfitting", "privacy"),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{2}\sum_i F_i(\theta_i-\theta_i^*)^2",
        claim="With pretraining, plain L2 outperforms EWC and feature distillation without rehearsal.",
        helps="Sequences of related tasks, fine-tuning of a pretrained network, where old data may not be kept.",
        hurts="Unrelated tasks; long sequences, in which the network stiffens.",
        cost="One or two copies of the selected parameters, one pass over them a step.",
    )

    def __init__(self, strength: Strength = 1.0, where: Where = "weights", fisher: bool = False) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.where = where
        self.fisher = fisher
        self.anchor = Snapshot()
        self.importance = Snapshot()
        self.elementwise = not fisher  # that is estimated with the whole model
        if fisher:
            self.needs = frozenset({"plain weights"})  # gradients are taken with respect to the parameters themselves

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        if not self.anchor.tensors:
            return {}
        chosen = [*{one.name: one for one in step.select(self.where)}.values()]  # weight norm has two leaves a weight
        importance = self.importance.matching(chosen) if self.fisher else []
        distance = anchor_penalty([one.weight for one in chosen], self.anchor.matching(chosen), importance)
        return {"distance": Term(distance, self.strength, per_sample=False)}

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        chosen = step.select(self.where)
        if self.fisher:
            if batches is None:
                raise TikhonError(f"{self.key} estimates the Fisher from data: recipe.end_task(loader).")

            def checked_values(output: Tensor, values: Tensor) -> Tensor:
                step.loss.refuse(output, values)
                return values

            def loss(output: Tensor, value: Tensor) -> Tensor:
                return weighted_losses(step.loss, output, Target.of(value))[0].sum()

            fisher = fisher_diagonal(chosen, batches, checked_values, loss, step, self.key)
            before = self.importance.tensors
            self.importance.take({name: f + before[name] if name in before else f for name, f in fisher.items()})
        self.anchor.take(effective_weights(chosen))
