"""What is done to finished gradients, beside torch and pytorch-optimizer: with the step of SGD that follows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from pytorch_optimizer.optimizer.gradient_centralization import centralize_gradient
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import tikhon as tk
from benchmarks.harness import Pair, case
from benchmarks.networks import ResNet20, with_gradients

SIZE = "ResNet-20 of 0.27 million weights"


def pair(method: tk.Method, theirs: Callable[[nn.Module], object], width: int = 16) -> Pair:
    """Both on given gradients, which are changed in place, and with the step that follows; answers are gradients."""
    model = with_gradients(ResNet20(width))
    twin = copy.deepcopy(model)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.grad = one.grad.clone()
    recipe = tk.Recipe(method)
    recipe.prepare(model)
    optimizer, follower = (torch.optim.SGD(one.parameters(), lr=1e-4) for one in (model, twin))
    recipe.attach(optimizer)

    def ours() -> tuple[Tensor, ...]:
        optimizer.step()
        return tuple(one.grad for one in model.parameters())

    def peer() -> tuple[Tensor, ...]:
        theirs(twin)
        follower.step()
        return tuple(one.grad for one in twin.parameters())

    return Pair(ours, peer)


@case(f"clipping the gradient's norm and a step of SGD, {SIZE}", peer="torch")
def norm() -> Pair:
    return pair(tk.ClipGradNorm(1.0), lambda model: clip_grad_norm_(model.parameters(), 1.0))


@case(f"clipping the gradient's entries and a step of SGD, {SIZE}", peer="torch")
def value() -> Pair:
    return pair(tk.ClipGradValue(0.5), lambda model: clip_grad_value_(model.parameters(), 0.5))


@case(f"gradient centralisation and a step of SGD, {SIZE}", peer="pytorch-optimizer")
def centralisation() -> Pair:
    def theirs(model: nn.Module) -> None:
        centralize_gradient([one.grad for one in model.parameters()])

    return pair(tk.GradientCentralisation(), theirs)
