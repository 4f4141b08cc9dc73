"""What timm does around an optimizer: adaptive clipping of gradients, and which parameters decay."""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor

import tikhon as tk
from benchmarks.harness import Pair, case
from benchmarks.networks import ResNet20, with_gradients

SIZE = "ResNet-20 of 0.27 million weights"


@case(f"adaptive gradient clipping and a step of SGD, {SIZE}", peer="timm")
def adaptive() -> Pair:
    """On given gradients, which are changed in place; answers are gradients."""
    model = with_gradients(ResNet20())
    twin = copy.deepcopy(model)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.grad = one.grad.clone()
    recipe = tk.Recipe(tk.AdaptiveGradientClipping(0.01, head=True))
    recipe.prepare(model)
    optimizer, follower = (torch.optim.SGD(one.parameters(), lr=1e-4) for one in (model, twin))
    recipe.attach(optimizer)

    def ours() -> tuple[Tensor, ...]:
        optimizer.step()
        return tuple(one.grad for one in model.parameters())

    def theirs() -> tuple[Tensor, ...]:
        adaptive_clip_grad(twin.parameters(), 0.01)
        follower.step()
        return tuple(one.grad for one in twin.parameters())

    return Pair(ours, theirs)


@case("groups with and without weight decay, ResNet-20", peer="timm", note="ours finds those that decay")
def groups() -> Pair:
    model = ResNet20()

    def ours() -> list[Tensor]:
        return [one.leaf for one in tk.select(model, "weights")]

    def theirs() -> list[dict[str, Any]]:
        return param_groups_weight_decay(model, 1e-4)

    def same() -> bool:
        _, decaying = theirs()
        return list(map(id, ours())) == list(map(id, decaying["params"]))

    return Pair(ours, theirs, same=same)
