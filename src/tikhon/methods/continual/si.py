"""Synaptic intelligence: hold each weight as firmly as its own path through training lowered the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Snapshot, Where
from tikhon.core.penalties import penalty_on
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Terms
from tikhon.math.fisher import anchor_penalty, anchor_pull


def path_importance(
    importance: Sequence[Tensor], credit: Sequence[Tensor], moved: Sequence[Tensor], damping: float
) -> list[Tensor]:
    """Omega <- max(0, Omega + omega / (Delta^2 + xi)) for every tensor (Zenke et al. 2017, equation 5).

    importance: Omega of earlier tasks; credit: omega, how much each weight's path lowered the loss; moved: Delta, how
    far each went in the task; damping: xi, positive. All of equal shapes. Cutting off below 0 is the official code's:
    a weight on whose path the loss rose must not be driven away.

    >>> path_importance([torch.tensor([1.0])], [torch.tensor([0.5])], [torch.tensor([0.0])], damping=0.1)
    [tensor([6.])]
    """
    scale = torch._foreach_add(torch._foreach_mul(list(moved), list(moved)), damping)
    total = torch._foreach_add(list(importance), torch._foreach_div(list(credit), scale))
    return list(torch._foreach_clamp_min(total, 0.0))


class SI(Method):
    """Synaptic intelligence: pull weights back to where the last task left them, by what each did for earlier tasks.

    Use it as EWC, where a network learns tasks in sequence and no old data may be kept, but without a pass over a
    task's data: importance is collected while the task is learned. Say `recipe.end_task()` when one is; before the
    first such call training is plain. Not where classes arrive one after another and share a softmax.

        loss = task + strength sum_i Omega_i (theta_i - theta*_i)^2
        Omega_i <- Omega_i + omega_i / (Delta_i^2 + damping),   omega_i = sum over steps of -g_i dtheta_i

    theta*: the weights at the last `end_task`; Delta: how far a weight went in the task; g: the gradient of the loss
    without the penalty above, as in the official code; penalties of other methods are part of the loss, and gradients
    are taken as the caller's clipping and methods that come before left them. With batches for gradients omega is too
    large, so that 1 overestimates a strength of the right order. Every optimizer will do.

    strength: c, at least 0, 0.1 in the paper's split tasks, 1 is the natural scale; damping: xi, positive, 0.1 there
    (0.001 for CIFAR): bounds the importance of weights that hardly moved; where: which parameters; leave out heads that
    belong to one task.

    Cost: four copies of the selected parameters, two more during a step, a few passes over them a step.
    Reference: Zenke, Poole, Ganguli 2017, arXiv 1703.04200.

    >>> recipe = tikhon.Recipe(tikhon.SI(strength=0.1))
    """

    card = Card(
        title="Continual Learning Through Synaptic Intelligence",
        authors="Zenke, Poole, Ganguli",
        year=2017,
        arxiv="1703.04200",
        problems=("forgetting", "privacy"),
        formula=r"L = \mathrm{task} + c\sum_i\Omega_i(\theta_i-\theta_i^*)^2,"
        r"\quad \Omega_i \mathrel{+}= \omega_i/(\Delta_i^2+\xi)",
        claim="Greatly reduces forgetting, as well as EWC does, with importance that is measured during training.",
        helps="Sequences of related tasks with outputs of their own, where old data may not be kept.",
        hurts="Classes that arrive one after another and share outputs; long sequences.",
        cost="Four copies of the parameters, a few passes over them a step.",
    )
    slots = {"gradients": "project", "after_step": "restore"}
    needs = frozenset({"plain weights"})

    def __init__(self, strength: Strength = 0.1, damping: Strength = 0.1, where: Where = "all") -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.damping = checked("damping", damping, low=1e-12)
        self.where = where
        self.credit, self.importance = Snapshot(), Snapshot()
        self.anchor = Snapshot()
        """The weights at the end of the last task; in the first one, at its first step."""
        self._before: list[tuple[Selected, Tensor, Tensor]] = []

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        if not self.importance.tensors:
            return {}
        chosen = step.select(self.where)
        anchors, importance = self.anchor.matching(chosen), self.importance.matching(chosen)
        distance = penalty_on(
            [one.leaf for one in chosen],
            self.strength,
            lambda leaves: 2.0 * anchor_penalty(leaves, anchors, importance),
            gradient=lambda leaves: torch._foreach_mul(anchor_pull(leaves, anchors, importance), 2.0),
        )
        return {"distance": distance}

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        # No gradient is changed: what the step will be worth is known once the optimizer has moved the weights.
        if not self.anchor.tensors:
            self._begin(step.select(self.where))
        leaves = [one.leaf.detach() for one in parameters]
        gradients = [one.leaf.grad for one in parameters if one.leaf.grad is not None]
        strength = step.value(self.strength)
        if self.importance.tensors and strength:
            chosen = list(parameters)
            pulls = anchor_pull(leaves, self.anchor.matching(chosen), self.importance.matching(chosen))
            own = list(torch._foreach_sub(gradients, pulls, alpha=2.0 * strength))
        else:
            own = [one.clone() for one in gradients]
        self._before = [(one, leaf.clone(), g) for one, leaf, g in zip(parameters, leaves, own, strict=True)]

    def after_step(self, model: nn.Module, step: Step) -> None:
        before, self._before = self._before, []
        if not before:
            return
        chosen, weights, gradients = zip(*before, strict=True)
        moves = torch._foreach_sub([one.leaf.detach() for one in chosen], list(weights))
        torch._foreach_addcmul_(self.credit.matching(list(chosen)), list(gradients), list(moves), -1.0)

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        chosen = step.select(self.where)
        if not self.anchor.tensors:
            self._begin(chosen)
        credit, names = self.credit.matching(chosen), [one.name for one in chosen]
        moved = torch._foreach_sub([one.leaf.detach() for one in chosen], self.anchor.matching(chosen))
        earlier = self.importance.matching(chosen) if self.importance.tensors else torch._foreach_mul(credit, 0.0)
        total = path_importance(earlier, credit, moved, step.value(self.damping))
        self.importance.take(dict(zip(names, total, strict=True)))
        self._begin(chosen)

    def _begin(self, chosen: Sequence[Selected]) -> None:
        """A task begins: its path starts here, and nothing has been earned yet."""
        self.anchor.take({one.name: one.leaf for one in chosen})
        self.credit.take({one.name: torch.zeros_like(one.leaf) for one in chosen})
