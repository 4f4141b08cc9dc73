"""Averages of weights beside torch: an optimizer step with given gradients, and the average that follows it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

import tikhon as tk
from benchmarks.harness import Pair, case
from benchmarks.networks import ResNet20, with_gradients

DECAY = 0.1
"""Small, because ours begins with a small one and rises to what was asked for; it does not matter to the time."""


def averages(method: tk.EMA | tk.SWA, multi_avg_fn: Callable[..., None], width: int) -> Pair:
    model = with_gradients(ResNet20(width))
    twin = with_gradients(copy.deepcopy(model))
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.grad.copy_(one.grad)
    recipe = tk.Recipe(method)
    recipe.prepare(model)
    optimizer, other = (torch.optim.SGD(one.parameters(), lr=1e-4) for one in (model, twin))
    recipe.attach(optimizer, epochs=1)
    averaged = AveragedModel(twin, multi_avg_fn=multi_avg_fn)

    def ours() -> tuple[Tensor, ...]:
        optimizer.step()
        return tuple(method.average.tensors.values())

    def theirs() -> tuple[Tensor, ...]:
        other.step()
        averaged.update_parameters(twin)
        return tuple(averaged.module.parameters())

    return Pair(ours, theirs, same=lambda: agree(ours, theirs))


def agree(ours: Callable[[], tuple[Tensor, ...]], theirs: Callable[[], tuple[Tensor, ...]]) -> bool:
    """Whether the averages agree after five steps."""
    for _ in range(5):
        mine, others = ours(), theirs()
    return all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(mine, others, strict=True))


@case("EMA after a step of SGD, ResNet-20 of 0.27 million weights", peer="torch")
def ema() -> Pair:
    return averages(tk.EMA(DECAY), get_ema_multi_avg_fn(DECAY), width=16)


@case("EMA after a step of SGD, ResNet-20 of 17 million weights", peer="torch")
def wide_ema() -> Pair:
    return averages(tk.EMA(DECAY), get_ema_multi_avg_fn(DECAY), width=128)


@case("SWA after a step of SGD, ResNet-20 of 0.27 million weights", peer="torch")
def swa() -> Pair:
    return averages(tk.SWA(start=0.0, every="step"), get_swa_multi_avg_fn(), width=16)
