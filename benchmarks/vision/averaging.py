"""Averages of weights beside timm: an optimizer step with given gradients, and the average that follows it."""

from __future__ import annotations

import copy

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

import tikhon as tk
from benchmarks.harness import Pair, case
from benchmarks.networks import ResNet20, with_gradients

DECAY = 0.1
"""Small, because ours begins with a small one and rises to what was asked for; it does not matter to the time."""


def averages(width: int) -> Pair:
    model = with_gradients(ResNet20(width))
    twin = with_gradients(copy.deepcopy(model))
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.grad.copy_(one.grad)
    method = tk.EMA(DECAY)
    recipe = tk.Recipe(method)
    recipe.prepare(model)
    optimizer, other = (torch.optim.SGD(one.parameters(), lr=1e-4) for one in (model, twin))
    recipe.attach(optimizer)
    optimizer.step()
    other.step()  # timm's begins where it is made, ours after the first step
    average = ModelEmaV3(twin, DECAY)

    def ours() -> tuple[Tensor, ...]:
        optimizer.step()
        return tuple(method.average.tensors.values())

    def theirs() -> tuple[Tensor, ...]:
        other.step()
        average.update(twin)
        return tuple(average.module.parameters())

    def same() -> bool:
        """Whether the averages agree after five steps."""
        for _ in range(5):
            mine, others = ours(), theirs()
        return all(torch.allclose(one, two, rtol=1e-5, atol=1e-6) for one, two in zip(mine, others, strict=True))

    return Pair(ours, theirs, same=same)


@case("EMA after a step of SGD, ResNet-20 of 0.27 million weights", peer="timm", note="timm averages statistics too")
def ema() -> Pair:
    return averages(width=16)


@case("EMA after a step of SGD, ResNet-20 of 17 million weights", peer="timm", note="timm averages statistics too")
def wide_ema() -> Pair:
    return averages(width=128)
