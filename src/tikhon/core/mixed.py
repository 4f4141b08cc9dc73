"""Mixed operations: modules that compete for one place of a model while it trains, until one of them is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Choice(nn.Module):
    """One decision, as a logit for every pair of an operation and one of its options.

    options: of every operation, at least one. The logits are a parameter, 0 at first, in the order of operations.
    """

    def __init__(self, options: Sequence[Sequence[int]], like: Tensor) -> None:
        super().__init__()
        self.pairs = [(operation, option) for operation, own in enumerate(options) for option in own]
        ends = [sum(map(len, options[: number + 1])) for number in range(len(options))]
        self.slices = [slice(end - len(own), end) for end, own in zip(ends, options, strict=True)]
        """Where the logits of each operation are."""
        self.logits = nn.Parameter(like.new_zeros(len(self.pairs)))

    def shares(self) -> Tensor:
        """Of every pair: softmax of all logits."""
        return self.logits.softmax(0)

    def within(self, operation: int) -> Tensor:
        """The shares of an operation's options among themselves."""
        return self.logits[self.slices[operation]].softmax(0)

    def best(self) -> tuple[int, int]:
        """The operation and the option with the largest share; the first of several."""
        return self.pairs[int(self.logits.argmax())]


class Mixed(nn.Module):
    """The mean of all operations by their shares in training; in evaluation the best one alone.

    All are computed in evaluation too: to ask which is the best would wait for the device.
    """

    def __init__(self, operations: Sequence[nn.Module], choice: Choice) -> None:
        super().__init__()
        self.operations, self.choice = nn.ModuleList(operations), choice

    def forward(self, *args: Any, **named: Any) -> Tensor:
        shares = self.choice.shares()
        if not self.training:
            largest = shares == shares.amax()
            shares = (largest & (largest.cumsum(0) == 1)).to(shares)
        parts = [
            shares[own].sum() * operation(*args, **named)
            for own, operation in zip(self.choice.slices, self.operations, strict=True)
        ]
        return torch.stack(parts).sum(0)


def choices(model: nn.Module) -> Iterator[tuple[str, nn.Module, Choice]]:
    """Every decision with its place: the name, and the mixed module or the layer that holds it."""
    for name, module in model.named_modules():
        if isinstance(choice := module._modules.get("choice"), Choice):  # walked in every step: not by attribute
            yield name, module, choice


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let the model have this module in the place of the one called `name`."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
