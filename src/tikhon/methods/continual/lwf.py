"""Learning without forgetting: on the new task's inputs, keep answering as before for the old tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.teacher import answer_with
from tikhon.core.terms import Term, Terms
from tikhon.math.distillation import distillation_losses
from tikhon.math.precision import at_least_float32


class LwF(Method):
    """Distil the network as it was at the end of the last task, on the inputs of the new one.

    Use it where tasks arrive in sequence, no old data may be kept and the new inputs look like the old ones: then the
    old network's answers on them say what must not change. Not where the domains differ much. Say
    `recipe.end_task(loader)` when a task is learned; before the first such call training is plain.

        loss = task + strength sum over earlier tasks of -sum_k p_k log q_k
        p = softmax(z_old / T),  q = softmax(z / T),  over the task's own outputs k

    z: the model's scores (B, K) for all tasks; z_old: those of the frozen network. The outputs of a task are the
    classes that its labels name: with `recipe.end_task(loader)` each earlier task is a softmax of its own, as in the
    paper, where every task has a head; with `recipe.end_task()`, without data, one softmax is over all outputs, for
    tasks that share them. Heads are columns of one output here, and labels its indices: let the base loss look at those
    of the task in hand, where a head must not compete with others. The paper first trains a new head alone.

    strength: at least 0, 1 in the paper; temperature: T, positive, 2 there, without Hinton's factor T^2; joint: one
    softmax over all earlier tasks' outputs together, as is usual where all classes compete in the end.

    Cost: a copy of the weights and buffers, and a forward pass with them. Reference: Li, Hoiem 2016, arXiv 1606.09282.

    >>> recipe = tikhon.Recipe(tikhon.LwF(strength=1.0))
    """

    card = Card(
        title="Learning without Forgetting",
        authors="Li, Hoiem",
        year=2016,
        arxiv="1606.09282",
        problems=("forgetting", "privacy"),
        formula=r"L = \mathrm{task} - \lambda\sum_t\sum_k p^{(t)}_k \log q^{(t)}_k,\ p = \mathrm{softmax}(z_{old}/T)",
        claim="Keeps old tasks better than fine-tuning with new data alone, and is as good on the new one.",
        helps="New tasks whose inputs look like those of the old ones; no old data at hand.",
        hurts="Inputs unlike the old ones, on which the old answers mean nothing; long sequences.",
        cost="A copy of the weights and buffers, and a forward pass with them.",
    )

    def __init__(self, strength: Strength = 1.0, temperature: Strength = 2.0, joint: bool = False) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.temperature = checked("temperature", temperature, low=1e-3)
        self.joint = joint
        self.old = Snapshot()
        """Parameters and buffers at the end of the last task."""
        self.tasks: list[list[int]] = []
        """The outputs of each earlier task; of a task that was ended without data, none, which stands for all."""

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if not self.tasks or step.value(self.strength) == 0.0:
            return {}
        if output.ndim != 2:
            raise TikhonError(f"{self.key} distils scores (B, K); the model gave {tuple(output.shape)}.")
        named = max((one for task in self.tasks for one in task), default=0)
        if named >= output.shape[1]:
            raise TikhonError(f"{self.key}: labels named output {named}, and the model gives {output.shape[1]}.")
        old = at_least_float32(answer_with(self.old.tensors, step.inputs, step))
        scores, temperature = at_least_float32(output), step.value(self.temperature)
        losses = [
            distillation_losses(scores[:, kept], old[:, kept], temperature) / temperature**2
            for kept in (one or slice(None) for one in self._softmaxes())
        ]
        return {"distillation": Term(torch.stack(losses).sum(0), self.strength)}

    def _softmaxes(self) -> list[list[int]]:
        """Which outputs compete with one another; each set of them once, though several tasks may share it."""
        sets = [sorted({one for task in self.tasks for one in task})] if self.joint else self.tasks
        return [list(one) for one in dict.fromkeys(map(tuple, sets))]

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        labels: set[int] = set()
        for _, values in batches or ():
            if values.is_floating_point() and values.numel():
                raise TikhonError(
                    f"{self.key} finds a task's outputs by its labels, which must be class indices: where all tasks "
                    "share all outputs, say recipe.end_task() without data."
                )
            labels.update(int(one) for one in values.unique().tolist() if one >= 0)
        self.tasks.append(sorted(labels))
        self.old.take({**dict(step.model.named_parameters()), **dict(step.model.named_buffers())})

    def get_extra_state(self) -> list[list[int]]:
        return [list(one) for one in self.tasks]

    def set_extra_state(self, state: list[list[int]]) -> None:
        self.tasks = [list(one) for one in state]
