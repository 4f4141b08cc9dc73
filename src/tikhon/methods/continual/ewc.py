"""EWC: hold each weight where earlier tasks left it, as firmly as the Fisher information says that it mattered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.fisher import fisher_diagonal
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, Where
from tikhon.core.penalties import penalty_on
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Terms
from tikhon.math.fisher import anchor_penalty, anchor_pull

Labels = Literal["observed", "sampled"]


def centre_of_both(
    centres: Sequence[Tensor], importance: Sequence[Tensor], others: Sequence[Tensor], added: Sequence[Tensor]
) -> list[Tensor]:
    """(F c + G d) / (F + G): where the sum of two quadratic penalties is least; d where F + G = 0.

    centres: c, importance: F >= 0, others: d, added: G >= 0, all of equal shapes. F (x - c)^2 + G (x - d)^2 is
    (F + G) (x - centre)^2 and a constant, so that the penalties of any number of tasks are one.

    >>> centre_of_both([torch.tensor([0.0])], [torch.tensor([3.0])], [torch.tensor([4.0])], [torch.tensor([1.0])])
    [tensor([1.])]
    """
    rows = zip(centres, importance, others, added, strict=True)
    return [torch.lerp(d, c, torch.where(f + g > 0, f / (f + g), 0.0)) for c, f, d, g in rows]


class EWC(Method):
    """Elastic weight consolidation: pull weights back to earlier tasks' values, the important ones most.

    Use it where a network learns tasks in sequence and no old data may be kept. Say `recipe.end_task(loader)` when a
    task is learned, with its data, on which the importance is measured; before the first such call training is plain.
    Give each task its own outputs, or the same ones where tasks differ in their inputs: classes that arrive one after
    another and share a softmax are forgotten all the same, because the newest are always the most likely. Replay of
    stored samples remembers better where it is allowed; `tikhon.SI` needs no pass over the data.

        loss = task + strength (1/2) sum_t sum_i F_ti (theta_i - theta*_ti)^2

    theta*_t: the weights at the end of task t; F_t: the diagonal of the Fisher information there, the mean squared
    gradient of the loss of single samples, model in eval mode. The sum over tasks is kept as one anchor and one
    importance, which is the same up to a constant: memory does not grow. Under several processes give every one the
    same data.

    strength: at least 0; Fisher values are small, so 1e2 to 1e5 is usual; decay: None, or gamma in [0, 1] for online
    EWC (Schwarz et al. 2018), F <- gamma F + F_t with the anchor at the last weights alone, 1 sums without fading;
    labels: "observed" takes the data's own (the empirical Fisher, which vanishes where they are fitted perfectly),
    "sampled" draws them from the model's prediction (the Fisher proper, for classes); where: which parameters; leave
    out heads that belong to one task.

    Cost: two copies of the selected parameters and one pass over them a step; about an epoch's gradients at the end of
    a task. Reference: Kirkpatrick et al. 2016, arXiv 1612.00796; online: Schwarz et al. 2018, arXiv 1805.06370.

    >>> recipe = tikhon.Recipe(tikhon.EWC(strength=1000.0))
    """

    card = Card(
        title="Overcoming catastrophic forgetting in neural networks",
        authors="Kirkpatrick, Pascanu, Rabinowitz, Veness, Desjardins, Rusu, Milan, Quan, Ramalho et al.",
        year=2016,
        arxiv="1612.00796",
        problems=("forgetting", "privacy"),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{2}\sum_t\sum_i F_{t,i}(\theta_i-\theta^*_{t,i})^2",
        claim="Remembers old tasks by slowing down learning on the weights that matter to them.",
        helps="Sequences of related tasks with outputs of their own, where old data may not be kept.",
        hurts="Classes that arrive one after another and share outputs; long sequences, in which the network stiffens.",
        cost="Two copies of the parameters, one pass over them a step; about an epoch of gradients after a task.",
    )
    needs = frozenset({"plain weights"})

    def __init__(
        self,
        strength: Strength = 400.0,
        decay: Strength | None = None,
        labels: Labels = "observed",
        where: Where = "all",
    ) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.decay = None if decay is None else checked("decay", decay, low=0.0, high=1.0)
        if labels not in ("observed", "sampled"):
            raise TikhonError(f"labels is 'observed' or 'sampled', not {labels!r}.")
        if labels == "sampled":
            self.needs = frozenset({"plain weights", "classes"})
        self.labels, self.where = labels, where
        self.anchor, self.importance = Snapshot(), Snapshot()

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        if not self.anchor.tensors:
            return {}
        chosen = step.select(self.where)
        anchors, importance = self.anchor.matching(chosen), self.importance.matching(chosen)
        distance = penalty_on(
            [one.leaf for one in chosen],
            self.strength,
            lambda leaves: anchor_penalty(leaves, anchors, importance),
            gradient=lambda leaves: anchor_pull(leaves, anchors, importance),
        )
        return {"distance": distance}

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        if batches is None:
            raise TikhonError(f"{self.key} estimates the Fisher from data: recipe.end_task(loader).")

        def label(output: Tensor, values: Tensor) -> Tensor:
            step.loss.refuse(output, values)
            if self.labels == "observed":
                return values
            p = step.loss.probabilities(output)
            if p.ndim != 2:
                raise TikhonError(f"{self.key} draws labels from scores (B, K), not {tuple(output.shape)}.")
            return torch.multinomial(p, 1, generator=step.generator(p.device))[:, 0]

        def loss(output: Tensor, value: Tensor) -> Tensor:
            return weighted_losses(step.loss, output, Target.of(value))[0].sum()

        chosen = step.select(self.where)
        added = [*fisher_diagonal(chosen, batches, label, loss, step, self.key).values()]
        centres = [one.leaf.detach() for one in chosen]
        total = added
        if self.anchor.tensors:
            before = self.importance.matching(chosen)
            if self.decay is None:
                centres = centre_of_both(self.anchor.matching(chosen), before, centres, added)
            fading = 1.0 if self.decay is None else step.value(self.decay)
            total = list(torch._foreach_add(added, before, alpha=fading))
        names = [one.name for one in chosen]
        self.anchor.take(dict(zip(names, centres, strict=True)))
        self.importance.take(dict(zip(names, total, strict=True)))
