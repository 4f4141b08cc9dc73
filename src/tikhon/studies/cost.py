"""What a training step costs: its time, and the memory that it holds at most."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from tikhon.core.recipe import Recipe

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]


class TrainingStep:
    """One recipe, model and optimizer on one fixed batch: calling it takes an optimizer step."""

    def __init__(
        self, recipe: Recipe, model: nn.Module, inputs: Tensor, target: Tensor, make_optimizer: MakeOptimizer
    ) -> None:
        self._recipe, self._inputs, self._target = recipe, inputs, target
        self._index = torch.arange(len(target))
        self._model = recipe.prepare(model, samples=len(target)).train()
        self._optimizer = make_optimizer(self._model.parameters())
        recipe.attach(self._optimizer, steps=1_000_000, epochs=1000)

    def __call__(self) -> None:
        self._optimizer.zero_grad()
        self._recipe.loss(self._inputs, self._target, index=self._index).backward()
        self._optimizer.step()

    def held(self) -> int:
        """Bytes that stay between steps: weights, statistics, gradients, optimizer state, the methods' state."""
        state = (self._model.state_dict(), self._optimizer.state_dict(), self._recipe.state_dict())
        gradients = [one.grad for one in self._model.parameters() if one.grad is not None]
        return sum(tensor.nbytes for tensor in [*_tensors(state), *gradients])


def seconds(steps: Mapping[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of every step, taken in turn so that a drift of the machine's speed meets all alike."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repetitions):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return times


def peak_memory(step: TrainingStep) -> int:
    """Bytes that one step holds at most, on the CPU: what stays between steps and the peak of what comes and goes.

    Counted from the allocations themselves, so it is exact and the same on every machine, unlike the size of the
    process.
    """
    step()  # optimizer state and memories are made in the first step
    held = step.held()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"].get("Device Type") == 0
    ]
    level = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        level += change
        peak = max(peak, level)
    return held + peak


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
