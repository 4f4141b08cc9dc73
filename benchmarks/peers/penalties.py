"""Penalties on weights beside torch: its weight decay, and penalties that are added to the loss by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon as tk
from benchmarks.harness import Pair, case
from benchmarks.networks import perceptron, training

STRENGTH = 1e-2
SIZE = "MLP 64-256-256-10, batch 128"


def pair(method: Callable[[], tk.Method], theirs: Callable[..., Callable[[], Tensor]]) -> Pair:
    """Training steps from the same weights on. same: whether the weights agree after ten."""
    inputs, labels = torch.randn(128, 64), torch.randint(10, (128,))

    def sides() -> tuple[Callable[[], Tensor], Callable[[], Tensor], nn.Module, nn.Module]:
        model = perceptron()
        twin = copy.deepcopy(model)
        recipe = tk.Recipe(method())
        recipe.prepare(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        recipe.attach(optimizer)

        def ours() -> Tensor:
            optimizer.zero_grad()
            loss = recipe.loss(inputs, labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return ours, theirs(twin, inputs, labels), model, twin

    def same() -> bool:
        mine, others, model, twin = sides()
        for _ in range(10):
            mine()
            others()
        weights = zip(model.parameters(), twin.parameters(), strict=True)
        return all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in weights)

    ours, peer, _, _ = sides()
    return Pair(ours, peer, same=same)


def added(penalty: Callable[[Tensor], Tensor]) -> Callable[..., Callable[[], Tensor]]:
    """A training step whose loss has a penalty on all weights but biases."""

    def make(model: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        weights = [one for one in model.parameters() if one.ndim > 1]

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), labels) + STRENGTH * sum(penalty(one) for one in weights)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return make


@case(
    f"L2 in a training step, {SIZE}",
    peer="torch",
    note="weight decay of SGD: no value of the penalty in the loss",
)
def decay() -> Pair:
    def theirs(model: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, weight_decay=STRENGTH)
        return training(model, inputs, labels, optimizer)

    return pair(lambda: tk.L2(STRENGTH, where="all"), theirs)


@case(f"L2 in a training step, {SIZE}, the peer's added to the loss", peer="torch")
def squares() -> Pair:
    return pair(lambda: tk.L2(STRENGTH), added(lambda weight: 0.5 * weight.square().sum()))


@case(f"L1 in a training step, {SIZE}, the peer's added to the loss", peer="torch")
def magnitudes() -> Pair:
    return pair(lambda: tk.L1(STRENGTH), added(lambda weight: weight.abs().sum()))
