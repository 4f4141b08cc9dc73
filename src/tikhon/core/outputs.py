"""Outputs of modules inside a model, over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from tikhon.core.parameters import find_module
from tikhon.core.passes import evaluating

Read = TypeVar("Read")

ROWS = 512
"""How many samples go through the model at a time."""


def read_outputs(
    model: nn.Module, inputs: Tensor, names: Sequence[str], method: str, read: Callable[[nn.Module, Tensor], Read]
) -> Iterator[list[tuple[str, Read]]]:
    """What the named modules return, batch by batch in the order of their calls; the model as in eval mode.

    inputs: (N, ...); names: of modules, "" for the model itself; method: in whose name an unknown one is refused; read:
    (module, output) -> what is kept of it, taken at once, because what comes after may write in place. A module that is
    called again in a pass counts on: "relu", "relu:2".
    """
    found: list[tuple[str, Read]] = []
    calls: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def record(module: nn.Module, args: Any, output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            found.append((name if calls[name] == 1 else f"{name}:{calls[name]}", read(module, output)))

        return record

    modules = {name: find_module(model, name, method) if name else model for name in names}
    for rows in inputs.split(ROWS):
        handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
        try:
            with evaluating(model):
                model(rows)
        finally:
            for handle in handles:
                handle.remove()
        yield list(found)
        found.clear()
        calls.clear()
