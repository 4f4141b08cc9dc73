"""The objective: from output and target to one number, reduced once, with the right denominator."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tikhon.core.errors import Diverged, TikhonError
from tikhon.core.losses import ClassLoss, Loss, weighted_losses
from tikhon.core.plan import Entry, Plan
from tikhon.core.run import Run
from tikhon.core.strength import Strength, resolve
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms

Total = float | Tensor
Parts = dict[str, tuple[Strength, Tensor]]
"""Addends of the loss by name: strength and reduced value."""


class Objective:
    """Asks the methods for targets and terms and reduces them."""

    def __init__(self, plan: Plan, run: Run, loss: Loss, smoothing: float) -> None:
        self.plan, self.run, self.loss, self.smoothing = plan, run, loss, smoothing
        self.values: dict[str, Tensor | float] = {}  # the parts of the latest loss, for logs and diagnosis
        self.parts: Parts | None = None  # those of `again` with their graphs, where somebody asked by giving a dict
        self.reads_samples = plan.acts("batch", "remember", "targets", "terms", "evaluate") or smoothing > 0.0

    def plain(self, output: Tensor, value: Tensor) -> Tensor:
        """The base loss, fused."""
        return self._alone(self.loss.mean(output, value))

    def _alone(self, loss: Tensor) -> Tensor:
        """The task's loss is all there is."""
        self.values = {"task": loss.detach()}
        if self.parts is not None:
            self.parts["task"] = (1.0, loss)
        return loss

    def fused(self, output: Tensor, value: Tensor) -> Tensor | None:
        """The base loss where torch itself finds labels in order; None where these have to be looked at.

        On the CPU its loss refuses labels out of range, and is NaN where all are ignored. A look of our own beforehand
        would take as long as all else that the engine does in such a step.
        """
        if not isinstance(self.loss, ClassLoss) or value.dtype != torch.int64 or not output.is_cpu or output.ndim < 2:
            return None
        try:
            loss = self.loss.mean(output, value)
        except (IndexError, RuntimeError, ValueError):
            return None
        number = loss.item()
        if not math.isfinite(number):
            return None
        self.values = {"task": number}
        return loss

    def first(self, output: Tensor, target: Target, total: Total | None, ignored: bool) -> tuple[Tensor, Target]:
        """The pass that writes per-sample state; returns the loss and the final target, for repetitions."""
        for entry in self.plan.of("remember"):
            if entry.active():
                self._enter(entry, "remember")
                entry.method.remember(output, target, entry.step)
        target = self.asked(output, target)
        return self.again(output, target, total, ignored), target

    def asked(self, output: Tensor, target: Target) -> Target:
        """What the output is asked to fit."""
        target = target.smooth(self.smoothing) if self.smoothing else target
        for entry in self.plan.of("targets"):
            if entry.active():
                self._enter(entry, "targets")
                target = entry.method.targets(output, target, entry.step)
        return target

    def again(self, output: Tensor, target: Target, total: Total | None, ignored: bool) -> Tensor:
        """The loss of a pass whose targets are known; writes nothing. ignored: whether some positions do not count."""
        terms: dict[str, Term] = {}
        for entry in self.plan.of("terms"):
            if entry.active():
                self._enter(entry, "terms")
                terms |= self._named(entry, entry.method.terms(output, target, entry.step))
        evaluated, rows, copies = output, target, 1
        for entry in self.plan.of("evaluate"):
            self._enter(entry, "evaluate")
            evaluated, rows = entry.method.evaluate(output, target, entry.step)
            copies = len(rows) // len(target)
        # Labels on an accelerator were not looked at: there, ignored positions have to be counted.
        all_count = not ignored and self.loss.kind == "classes" and target.value.device.type == "cpu"
        if not terms and total is None and copies == 1 and not ignored:
            if target.plain:
                return self.plain(evaluated, target.value)
            if target.alike and all_count and isinstance(self.loss, ClassLoss) and self.loss.weight is None:
                return self._alone(self.loss.mean_of(evaluated, target))
        losses, mass = weighted_losses(self.loss, evaluated, rows, all_count)
        if copies > 1:
            losses = losses.reshape(copies, -1).mean(0)
            mass = None if mass is None else mass[: len(target)]
        return self._reduce(losses, mass, terms, total)

    def _reduce(self, losses: Tensor, mass: Tensor | None, terms: Mapping[str, Term], total: Total | None) -> Tensor:
        denominator: Tensor | float = float(len(losses)) if mass is None else mass.sum()
        if total is not None:
            denominator = total / self.run.world  # gradients are averaged over processes, and here must add up
        if isinstance(denominator, Tensor):
            # A batch that counts nothing has loss 0, not 0 / 0: divided by infinity. No look at the value is needed.
            denominator = denominator.to(losses.dtype)
            denominator = denominator.where(denominator > 0, math.inf)
        elif denominator == 0:
            denominator = math.inf
        result = losses.sum() / denominator
        self.values = {"task": result.detach()}
        if self.parts is not None:
            self.parts["task"] = (1.0, result)
        for name, term in terms.items():
            strength = resolve(term.strength, self.run.clock)
            if term.per_sample:
                if term.value.shape != losses.shape:
                    raise TikhonError(
                        f"The term {name} has shape {tuple(term.value.shape)}; a per-sample term must have one value "
                        f"a sample, {tuple(losses.shape)}. Say per_sample=False where it is a property of the batch."
                    )
                value = (term.value if mass is None else term.value * mass).sum() / denominator
            else:
                # A property of the batch counts as much as the batch does in the whole optimizer step.
                share = 1.0 if total is None else (len(losses) if mass is None else mass.sum()) / denominator
                value = term.value * share
            self.values[name] = value.detach()
            if self.parts is not None:
                self.parts[name] = (term.strength, value)
            result = result + strength * value
        return result

    def penalties(self) -> dict[str, Term]:
        """The penalties on parameters, once per optimizer step."""
        terms: dict[str, Term] = {}
        for entry in self.plan.of("parameter_terms"):
            if entry.active():
                self._enter(entry, "parameter_terms")
                try:
                    found = entry.method.parameter_terms(self.run.model, entry.step)
                except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                    # What a decomposition says of weights that are NaN.
                    raise Diverged(
                        f"{entry.key} cannot be computed at step {self.run.clock.number}; are the weights still "
                        f"finite? Lower the learning rate. {error}"
                    ) from error
                terms |= self._named(entry, found)
        return terms

    def _named(self, entry: Entry, terms: Terms) -> dict[str, Term]:
        return {
            (entry.key if name == entry.key else f"{entry.key}/{name}"): term
            for name, term in terms.items()
            if entry.step.value(term.strength) != 0.0
        }

    def _enter(self, entry: Entry, moment: str) -> None:
        self.run.moment = moment
        entry.step.replay()

    def diverged(self, value: float, penalties: Mapping[str, Tensor]) -> Diverged:
        """Names the part of the loss, or the penalty in it, that is NaN or infinite. value: that of the loss."""
        parts: dict[str, Tensor | float] = {**self.values, **penalties}
        broken = [name for name, part in parts.items() if not math.isfinite(float(part))]
        where = ", ".join(broken) or "the sum of its terms"
        return Diverged(
            f"The loss is {value} at step {self.run.clock.number} (epoch {self.run.clock.epoch}): "
            f"{where} is not finite. Nothing was updated. Check the inputs for NaN, lower the learning rate, or "
            "lower the strength of that term."
        )
