"""What a training step costs: its time, and the memory that it holds at most."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tikhon.core.recipe import Recipe

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]

BLOCK_SECONDS = 0.004
"""A block of calls lasts at least this long: far above the clock's resolution, far below a drift of the machine."""


class MeasuredStep(Protocol):
    """An optimizer step that can be taken again and again."""

    def __call__(self) -> None: ...

    def held(self) -> int:
        """Bytes that stay between steps: weights, statistics, optimizer state, the methods' state; not gradients."""
        ...


class PlainStep:
    """A training step as one writes it by hand, without a recipe: what all others are measured against."""

    def __init__(
        self,
        criterion: Callable[[Tensor, Tensor], Tensor],
        model: nn.Module,
        inputs: Tensor,
        target: Tensor,
        make_optimizer: MakeOptimizer,
    ) -> None:
        self._criterion, self._inputs, self._target = criterion, inputs, target
        self._model = model.train()
        self._optimizer = make_optimizer(model.parameters())

    def __call__(self) -> None:
        self._optimizer.zero_grad()
        self._criterion(self._model(self._inputs), self._target).backward()
        self._optimizer.step()

    def forward(self) -> Tensor:
        """The first part of the step."""
        return self._criterion(self._model(self._inputs), self._target)

    def forward_and_backward(self) -> None:
        """All of the step but the optimizer's."""
        self._optimizer.zero_grad()
        self.forward().backward()

    @torch.no_grad()
    def sweep(self) -> None:
        """One operation on all parameters, which leaves them as they are."""
        torch._foreach_mul([one for group in self._optimizer.param_groups for one in group["params"]], 1.0)

    def held(self) -> int:
        return _bytes(self._model.state_dict(), self._optimizer.state_dict())


class TrainingStep:
    """One recipe, model and optimizer on one fixed batch: calling it takes an optimizer step.

    samples: how many the training set has, among which the batch's are spread; by default those of the batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        inputs: Tensor,
        target: Tensor,
        make_optimizer: MakeOptimizer,
        samples: int | None = None,
    ) -> None:
        self._recipe, self._inputs, self._target = recipe, inputs, target
        samples = len(target) if samples is None else samples
        self._index = torch.arange(len(target), device=target.device) * (samples // len(target))
        self._model = recipe.prepare(model, samples=samples).train()
        self._optimizer = make_optimizer(self._model.parameters())
        recipe.attach(self._optimizer, steps=1_000_000, epochs=1000)

    def __call__(self) -> None:
        self._optimizer.zero_grad()
        self._recipe.loss(self._inputs, self._target, index=self._index).backward()
        self._optimizer.step()

    def held(self) -> int:
        return _bytes(self._model.state_dict(), self._optimizer.state_dict(), self._recipe.state_dict())


def enough(call: Callable[[], object], wait: Callable[[], None] = lambda: None) -> int:
    """How many calls make a block. Warms up on the way.

    wait: returns when the device has done what it was given.
    """
    number = 1
    for _ in range(3):
        call()
    while (taken := block(call, number, wait) * number) < BLOCK_SECONDS:
        number = max(number + 1, int(number * 1.2 * BLOCK_SECONDS / max(taken, 1e-7)))
    return number


def block(call: Callable[[], object], number: int, wait: Callable[[], None] = lambda: None) -> float:
    """Seconds a call, of so many on end."""
    wait()
    start = time.perf_counter()
    for _ in range(number):
        call()
    wait()
    return (time.perf_counter() - start) / number


def seconds(
    steps: Mapping[str, Callable[[], object]],
    numbers: Mapping[str, int],
    repetitions: int,
    on_round: Callable[[], None] = lambda: None,
    wait: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of every step, blocks of them taken in turn so that a drift of the machine's speed meets all alike.

    numbers: how many steps make a block of each; on_round: called after every round, outside the times.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repetitions):
        for name, step in steps.items():
            if numbers[name] > 1:
                step()  # finds the caches full of others' code and weights, as the steps of a training do not
            times[name].append(block(step, numbers[name], wait))
        on_round()
    return times


def peak_memory(step: MeasuredStep) -> int:
    """Bytes that one step holds at most: what stays between steps and the peak of what comes and goes.

    Counted from the tensors themselves, so it is exact and the same on every machine, unlike the size of the process.
    What an operation needs only inside itself is not counted.
    """
    step()  # optimizer state and memories are made in the first step
    return step.held() + peak_of(step)


def peak_of(call: Callable[[], object]) -> int:
    """Bytes of tensors that a call makes and holds at most at one time, beside what was there before."""
    allocations = _Allocations()
    with allocations:
        call()
    return allocations.peak


class _Allocations(TorchDispatchMode):
    """Counts the bytes of all storages that operations make and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.level: int = 0
        self.peak: int = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in _tensors([args, kwargs])}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors([result]):
            storage = tensor.untyped_storage()
            name, size = storage._cdata, storage.nbytes()
            if name not in given and name not in self._alive:
                self._alive.add(name)
                self.level += size
                self.peak = max(self.peak, self.level)
                weakref.finalize(storage, self._freed, name, size)
        return result

    def _freed(self, name: int, size: int) -> None:
        self._alive.discard(name)
        self.level -= size


def _bytes(*states: Any) -> int:
    return sum(int(tensor.nbytes) for tensor in _tensors(states))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
