"""Knowledge distillation: a network learns what a better one thinks of all classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import over_positions, weighted_losses
from tikhon.core.method import Method
from tikhon.core.passes import frozen_copy
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.distillation import distillation_losses
from tikhon.math.precision import at_least_float32


class KnowledgeDistillation(Method):
    """Learn the labels and, at a temperature, the probabilities that a trained teacher gives to all classes.

    Use it where a small network is to come near a large one or an ensemble, or where labels are few. Not with a teacher
    that was trained with smoothed labels, which has forgotten how wrong classes resemble each other, nor with one that
    knows no more than the student will.

        loss = (1 - alpha) task + alpha T^2 CE(softmax(z_teacher / T), softmax(z / T))

    teacher: a module, which sees the inputs as the student does, mixed or cut too; or a table of scores (samples, K),
    computed once and looked up by sample id, each part of a mixed sample for itself. Of a module a frozen copy in eval
    mode is taken, which goes where the model is; neither copy nor table is part of the model or of the saved state.
    temperature: T, positive, 4 by default; alpha: in [0, 1], 0.9 by default, 0 is plain training. Where another method
    evaluates the task on several outputs a sample, what is taken back of it is the loss of the model's own output.

    Cost: a forward pass of the teacher; with a table none, but sample ids are needed.
    Reference: Hinton, Vinyals, Dean 2015, arXiv 1503.02531.

    >>> teacher = torch.nn.Linear(3, 2)
    >>> recipe = tikhon.Recipe(tikhon.KnowledgeDistillation(teacher, temperature=4.0))
    """

    card = Card(
        title="Distilling the Knowledge in a Neural Network",
        authors="Hinton, Vinyals, Dean",
        year=2015,
        arxiv="1503.02531",
        problems=("compression", "overfitting"),
        formula=r"L = (1-\alpha)\,\mathrm{task} + \alpha T^2\,\mathrm{CE}(\sigma(z^t/T), \sigma(z/T))",
        claim="A small model learns most of what a large one or an ensemble knows, from few labels too.",
        helps="A better teacher; small students, few labels.",
        hurts="Teachers no better than the student, or trained with smoothed labels.",
        cost="A forward pass of the teacher, or a table of its scores.",
        neutral="alpha=0",
    )

    def __init__(self, teacher: nn.Module | Tensor, temperature: Strength = 4.0, alpha: Strength = 0.9) -> None:
        super().__init__()
        table = isinstance(teacher, Tensor) and teacher.ndim >= 2 and teacher.is_floating_point()
        if not table and not isinstance(teacher, nn.Module):
            raise TikhonError("teacher must be a module, or a floating-point tensor of scores (samples, K).")
        self.temperature = checked("temperature", temperature, low=1e-3)
        self.alpha = checked("alpha", alpha, low=0.0, high=1.0)
        self.needs = frozenset({"classes", "ids"} if table else {"classes"})
        self._table = teacher.detach() if isinstance(teacher, Tensor) else None
        # In a tuple: a submodule would be saved with the state.
        self._teacher = (frozen_copy(teacher),) if isinstance(teacher, nn.Module) else ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for teacher in self._teacher:
            teacher._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.alpha) == 0.0:
            return {}
        distilled = over_positions(self._distilled(output, target, step), step.loss, target)
        # The task counts in full already: alpha of it is taken back.
        losses, mass = weighted_losses(step.loss, output, target)
        task = losses if mass is None else losses / mass.where(mass > 0, 1.0)
        return {"distilled": Term(distilled - task, self.alpha)}

    def _distilled(self, output: Tensor, target: Target, step: Step) -> Tensor:
        """T^2 times the cross-entropy of what the teacher says of every row."""
        scores, temperature = at_least_float32(output), step.value(self.temperature)

        def losses(taught: Tensor) -> Tensor:
            if taught.shape != scores.shape:
                raise TikhonError(
                    f"{self.key}: the teacher gives scores of shape {tuple(taught.shape)}, the student "
                    f"{tuple(scores.shape)}; they must be of the same classes."
                )
            return distillation_losses(scores, taught.to(scores), temperature)

        if self._teacher:
            with torch.no_grad():
                taught = step.output(self._teacher[0], step.inputs)
            return losses(taught)
        return target.lookup(lambda ids: losses(self._rows(ids)))

    def _rows(self, ids: Tensor) -> Tensor:
        assert self._table is not None
        try:
            return self._table[ids.to(self._table.device)]
        except IndexError:
            raise TikhonError(
                f"{self.key}: the teacher's table has {len(self._table)} rows, and some sample has a larger id; it "
                "needs one row for every sample of the full data set."
            ) from None
