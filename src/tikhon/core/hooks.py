"""Riding on the optimizer's own step: when a step begins, and when it really happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from tikhon.core.errors import TikhonError


class Listener(Protocol):
    """What happens around a step of the attached optimizers."""

    def before_step(self) -> None:
        """Gradients are complete: penalties and `gradients`."""

    def after_step(self) -> None:
        """Parameters have moved."""

    def skipped(self) -> None:
        """The step was called but moved nothing, because gradients had overflowed."""

    def mark(self) -> Any:
        """Where the micro-batches stand before a closure is evaluated."""

    def rewind(self, mark: Any) -> None:
        """A closure is about to be evaluated again: forget what its last evaluation staged."""


def unwrap_optimizer(optimizer: Any) -> Optimizer:
    """The torch optimizer inside what frameworks put around it."""
    inner = optimizer
    while isinstance(getattr(inner, "optimizer", None), Optimizer) or (
        not isinstance(inner, Optimizer) and hasattr(inner, "optimizer")
    ):
        inner = inner.optimizer
    if not isinstance(inner, Optimizer):
        raise TikhonError(f"attach needs torch optimizers, not {type(optimizer).__name__}.")
    return inner


def attachable(optimizers: Sequence[Any]) -> tuple[Optimizer, ...]:
    if not optimizers:
        raise TikhonError("attach needs the optimizer of the training: recipe.attach(optimizer, steps=...).")
    inner = tuple(unwrap_optimizer(optimizer) for optimizer in optimizers)
    if len({id(optimizer) for optimizer in inner}) < len(inner):
        raise TikhonError("The same optimizer was passed twice; attach each once.")
    return inner


class StepHooks:
    """Hooks on several optimizers that are stepped together: the first begins the step, the last ends it.

    Only the outermost `step` counts, so that an optimizer that steps another one inside is one step.
    """

    def __init__(self, optimizers: Sequence[Optimizer], listener: Listener) -> None:
        self._optimizers = list(optimizers)
        self._listener = listener
        self._depth = 0
        self._begun = False
        self._handles: list[RemovableHandle] = []
        for optimizer in optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def reset(self) -> None:
        """A new micro-batch: no step can be under way, whatever exception left one unfinished."""
        self._depth, self._begun = 0, False

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._depth += 1
        if self._depth > 1 or self._begun:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._begin(optimizer)
            return None
        wrapped = self._with_gradients(optimizer, closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _begin(self, optimizer: Optimizer) -> None:
        self._begun = True
        if _overflowed(optimizer):
            return
        scale: Tensor | None = getattr(optimizer, "grad_scale", None)
        if scale is None:
            self._listener.before_step()
        else:
            with _unscaled(optimizer, scale):
                self._listener.before_step()

    def _with_gradients(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, followed by what must happen to its gradients; every evaluation starts from the same place."""
        mark, depth, evaluated = self._listener.mark(), self._depth, False

        def wrapped() -> Any:
            nonlocal evaluated
            if evaluated:
                self._listener.rewind(mark)
            evaluated = True
            try:
                with torch.enable_grad():
                    result = closure()
                self._depth = depth  # the closure's own loss has reset it
                self._begin(optimizer)
            except BaseException:
                self.reset()  # this step never ends
                raise
            return result

        return wrapped

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth -= 1
        if self._depth > 0 or not self._begun or optimizer is not self._optimizers[-1]:
            return
        self._begun = False
        if _overflowed(optimizer):
            self._listener.skipped()
        else:
            self._listener.after_step()


def _overflowed(optimizer: Optimizer) -> bool:
    """Whether a fused optimizer under a gradient scaler will skip this step. Costs a look at the device, there only."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


@contextmanager
def _unscaled(optimizer: Optimizer, scale: Tensor) -> Iterator[None]:
    """Gradients that a fused optimizer would unscale itself, unscaled inside."""
    gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
    torch._foreach_mul_(gradients, scale.reciprocal())
    yield
    torch._foreach_mul_(gradients, scale)
