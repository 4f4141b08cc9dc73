"""The training step: every moment in its time, from the batch to what follows the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core import export
from tikhon.core.batches import first_tensor
from tikhon.core.checkpointing import refuse_hidden_parameters
from tikhon.core.errors import TikhonError
from tikhon.core.hypergradient import Pass
from tikhon.core.objective import Objective, Total
from tikhon.core.passes import RandomState, Statistics, frozen_statistics
from tikhon.core.plan import Entry, Plan
from tikhon.core.run import Run
from tikhon.core.setup import needing_ids
from tikhon.core.target import Target
from tikhon.core.tuning import Tuning
from tikhon.core.window import Mark, Window


@dataclass(slots=True, eq=False)
class Batch:
    """A micro-batch as the caller gave it, and what to call with it."""

    called: Callable[..., Any]
    inputs: Any
    target: Any
    index: Tensor | None
    weight: Tensor | None
    total: Total | None


class Training:
    """Runs the moments of a plan. The optimizer's hooks call `before_step` and `after_step`."""

    def __init__(self, plan: Plan, run: Run, objective: Objective, window: Window) -> None:
        self._plan, self._run, self._objective, self._window = plan, run, objective, window
        self._wanting_ids = needing_ids(plan)
        self._owing = [entry.method for entry in plan.of("parameter_terms")]
        self._around = next(iter(plan.of("around")), None)
        self._samples = 0
        self._statistics: Statistics | None = None
        self._cached: Callable[[], AbstractContextManager[None]] | None = None
        self.example: Any = None
        self.tuning: Tuning | None = None

    def begin(self, model: nn.Module, samples: int | None) -> None:
        """The model is prepared."""
        self._samples = samples or 0
        self._statistics = Statistics(model)
        if any(parametrize.is_parametrized(module) for module in model.modules()):
            self._cached = parametrize.cached

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a micro-batch, all moments up to backward done; a batch that is refused leaves no trace."""
        run = self._run
        run.restore()
        if run.names and self.tuning is None:
            self._refuse_untuned()
        if self._window.begin() and self.tuning is not None:
            self.tuning.forget()
        assert self._statistics is not None
        if self._statistics.norms and run.device.type == "cpu":  # elsewhere no value is looked at in time to refuse it
            self._statistics.keep()
        try:
            if run.precision.plain:
                loss = self._loss(batch)
            else:
                with run.precision.full(run.device.type):
                    loss = self._loss(batch)
        except BaseException:
            run.restore()
            self._statistics.restore()
            self._window.forget_batch()
            if self.tuning is not None and run.clock.micro == 0:
                self.tuning.forget()
            raise
        finally:
            run.end_batch()
        run.clock.micro += 1
        return loss

    def _loss(self, batch: Batch) -> Tensor:
        run, objective = self._run, self._objective
        inputs, aim = batch.inputs, None
        if objective.reads_samples or batch.weight is not None or batch.total is not None:
            index = self._checked_index(batch.index, inputs)
            _refuse_weight(batch.weight, inputs)
            aim = Target.of(batch.target, index, batch.weight)
            inputs, aim = self._changed_batch(inputs, aim)
            run.begin_batch(batch.inputs, inputs, mixed=len(aim.parts) > 1)
        if self.example is None:
            self.example = export.example_of(inputs)
        penalties = self._window.penalties(objective.penalties, self._owing) if self._owing else ()
        around = self._around
        tuning = self.tuning if self.tuning is not None and self.tuning.due() else None
        passes = _Passes(run, objective, self._cached, batch, inputs, aim, around.key if around else "", tuning)
        if around is not None and around.active():
            run.moment = "around"
            around.step.replay()
            loss = around.method.around(passes, around.step)
            if run.perturbed:
                self._restore_after(loss)
        else:
            loss = passes.first()
        for strength, penalty in penalties:
            loss = torch.add(loss, penalty, alpha=strength)
        self._check_finite(loss)
        self._window.follow(loss)
        return loss

    def _refuse_untuned(self) -> None:
        raise TikhonError(
            f"{', '.join(self._run.names.values())} is Learned, and nothing says from what: call "
            "recipe.tune(validation_batches) before training."
        )

    def _changed_batch(self, inputs: Any, target: Target) -> tuple[Any, Target]:
        rows = len(first_tensor(inputs)) if self._plan.of("batch") else len(target)
        if len(target) != rows:
            raise TikhonError(f"A target of shape {tuple(target.value.shape)} does not fit a batch of {rows} inputs.")
        for entry in self._plan.of("batch"):
            if entry.active():
                self._run.moment = "batch"
                entry.step.replay()
                inputs, target = entry.method.batch(inputs, target, entry.step)
        return inputs, target

    def _checked_index(self, index: Tensor | None, inputs: Any) -> Tensor | None:
        if not self._wanting_ids:
            return None if index is None else index.to(self._run.device)  # mixing permutes it there
        rows = len(first_tensor(inputs))
        if index is None:
            raise TikhonError(
                f"{', '.join(self._wanting_ids)} needs to know which samples these are: wrap the full data set in "
                "tk.data.indexed(...) and pass recipe.loss(x, y, index=index)."
            )
        if index.shape != (rows,) or index.is_floating_point():
            raise TikhonError(f"index must be {rows} integers; got {index.dtype} of {tuple(index.shape)}.")
        if index.device.type == "cpu" and rows:
            low, high = (int(bound) for bound in torch.aminmax(index))
            if low < 0 or high >= self._samples:
                raise TikhonError(
                    f"Sample ids range from {low} to {high}, but prepare was told samples={self._samples}. "
                    "Index the full data set before any split."
                )
        return index.to(self._run.device, torch.int64)

    def _restore_after(self, loss: Tensor) -> None:
        """Put perturbed weights back when this loss's backward has ended, before anybody clips or steps."""

        def queue(gradient: Tensor) -> None:
            torch.autograd.Variable._execution_engine.queue_callback(self._run.restore)

        loss.register_hook(queue)

    def _check_finite(self, loss: Tensor) -> None:
        # A look at the value waits for an accelerator: there it is taken at the first step and at the end of epochs.
        if not loss.is_cpu and self._run.clock.number:
            self._window.note(loss)
        elif not math.isfinite(value := loss.item()):
            raise self._objective.diverged(value, self._window.penalty_values)

    def before_step(self) -> None:
        """Gradients are complete: add the penalties' and let methods change them."""
        run = self._run
        run.restore()
        self._window.add_penalty_gradients()
        if self._plan.of("gradients"):
            self._in_place("gradients", self._gradients)

    def _gradients(self, entry: Entry) -> None:
        chosen = self._run.select(getattr(entry.method, "where", "all"))
        entry.method.gradients([one for one in chosen if one.leaf.grad is not None], entry.step)

    def after_step(self) -> None:
        """The step happened."""
        run = self._run
        self._window.commit()
        if self._plan.of("after_step"):
            self._in_place("after_step", lambda entry: entry.method.after_step(run.model, entry.step))
        if self.tuning is not None:
            self.tuning.commit()
        run.clock.number += 1
        run.clock.epoch_steps += 1
        run.clock.micro = 0

    def _in_place(self, moment: str, act: Callable[[Entry], None]) -> None:
        """A moment that writes into parameters or gradients: those who act in it, one after another."""
        run, entries = self._run, self._plan.of(moment)
        outer, run.moment = run.moment, moment
        try:
            with run.precision.full(run.device.type), torch.no_grad():
                for entry in entries:
                    if entry.active():
                        with run.whole([entry.method]):
                            entry.step.replay()
                            act(entry)
        finally:
            run.moment = outer

    def skipped(self) -> None:
        """The step moved nothing."""
        self._window.forget()
        if self.tuning is not None:
            self.tuning.forget()

    def mark(self) -> Mark:
        return self._window.mark()

    def rewind(self, mark: Mark) -> None:
        self._window.rewind(mark)

    def end_epoch(self) -> None:
        run = self._run
        self._window.refuse_noted()
        for entry in self._plan.of("epoch_end"):
            with run.during("epoch_end"), run.whole([entry.method]), torch.no_grad():
                entry.step.replay()
                entry.method.epoch_end(entry.step)
        run.clock.epoch += 1
        run.clock.last_epoch_steps, run.clock.epoch_steps = run.clock.epoch_steps, 0


def _refuse_weight(weight: Tensor | None, inputs: Any) -> None:
    rows = None if weight is None else len(first_tensor(inputs))
    if weight is not None and weight.shape != (rows,):
        raise TikhonError(f"weight must be one number a sample, shape ({rows},); got {tuple(weight.shape)}.")


class _Passes:
    """The loss as a function of the weights: the first call writes state, every further call repeats it exactly."""

    def __init__(
        self,
        run: Run,
        objective: Objective,
        cached: Callable[[], AbstractContextManager[None]] | None,
        batch: Batch,
        inputs: Any,
        aim: Target | None,
        repeated_by: str,
        tuning: Tuning | None,
    ) -> None:
        self._run, self._objective, self._cached = run, objective, cached
        self._batch, self._inputs, self._aim = batch, inputs, aim
        self._repeated_by, self._tuning = repeated_by, tuning
        self._random: RandomState | None = None
        self._ignored = False

    def __call__(self) -> Tensor:
        if self._random is None:
            self._random = RandomState.now(self._run.device)
            loss = self.first()
            if self._run.clock.number == 0:
                refuse_hidden_parameters(loss, self._repeated_by)
            return loss
        after = RandomState.now(self._run.device)
        self._random.restore()
        try:
            with frozen_statistics(self._run.model):
                output = self._forward()
                if self._aim is None:
                    return self._objective.plain(output, self._batch.target)
                return self._objective.again(output, self._aim, self._batch.total, self._ignored)
        finally:
            after.restore()

    def first(self) -> Tensor:
        """The pass that writes state."""
        return self._of(self._forward()) if self._tuning is None else self._tuned(self._tuning)

    def _tuned(self, tuning: Tuning) -> Tensor:
        """The first pass, and what the next strengths will follow."""
        run, given, random = self._run, self._aim, RandomState.now(self._run.device)
        run.reads = set()
        output = self._forward()
        loss = self._of(output)
        seen = Pass(self._inputs, output, given, self._aim, self._batch.total, self._ignored, random)
        tuning.look(seen, self._batch.inputs)
        return loss

    def _of(self, output: Tensor) -> Tensor:
        objective, batch = self._objective, self._batch
        if self._aim is None and (loss := objective.fused(output, batch.target)) is not None:
            return loss
        # Methods may have added rows to the batch, but a row's own target is what came with it.
        self._ignored = objective.loss.refuse(output, batch.target if self._aim is None else self._aim.value)
        if self._aim is None and not self._ignored:
            return objective.plain(output, batch.target)
        loss, self._aim = objective.first(output, self._aim or Target.of(batch.target), batch.total, self._ignored)
        self._run.skipped.stage(self._run.clock.micro, self._aim, batch.weight)
        return loss

    def _forward(self) -> Tensor:
        run = self._run
        outer = run.passing.begin(of_loss=True)
        try:
            if self._cached is None and not run.taps.placed:
                return run.output(self._batch.called, self._inputs)
            with (self._cached or nullcontext)(), run.taps.recording() as run.features:
                return run.output(self._batch.called, self._inputs)
        finally:
            run.passing.end(outer)
