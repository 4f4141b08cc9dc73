"""Sharpness-aware steps beside pytorch-optimizer: the whole training step, on a fixed batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from pytorch_optimizer import SAM
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon as tk
from benchmarks.harness import Pair, case
from benchmarks.networks import perceptron, small_cnn

RATE = 1e-3


def steps(method: tk.Method, model: nn.Module, inputs: Tensor, adaptive: bool) -> tuple[Callable, Callable]:
    """Our step and theirs, from the same weights on; each returns the weights."""
    labels, twin = torch.randint(10, (len(inputs),)), copy.deepcopy(model)
    recipe = tk.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    recipe.attach(optimizer)
    other = SAM(twin.parameters(), torch.optim.SGD, rho=0.05, adaptive=adaptive, lr=RATE)

    def ours() -> tuple[Tensor, ...]:
        optimizer.zero_grad()
        recipe.loss(inputs, labels).backward()
        optimizer.step()
        return tuple(model.parameters())

    def closure() -> Tensor:
        other.zero_grad()
        loss = F.cross_entropy(twin(inputs), labels)
        loss.backward()
        return loss

    def theirs() -> tuple[Tensor, ...]:
        closure()
        other.step(closure)
        return tuple(twin.parameters())

    return ours, theirs


def pair(method: Callable[[], tk.Method], network: Callable[[], nn.Module], inputs: Tensor, adaptive: bool) -> Pair:
    """same: whether both take the same ten steps."""

    def same() -> bool:
        ours, theirs = steps(method(), network(), inputs, adaptive)
        for _ in range(10):
            mine, others = ours(), theirs()
        return all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(mine, others, strict=True))

    return Pair(*steps(method(), network(), inputs, adaptive), same=same)


@case("SAM step, MLP 64-256-256-10, batch 128", peer="pytorch-optimizer")
def perceptrons() -> Pair:
    return pair(lambda: tk.SAM(0.05), perceptron, torch.randn(128, 64), adaptive=False)


@case("SAM step, two convolutions, batch 128 x 3 x 16 x 16", peer="pytorch-optimizer")
def convolutions() -> Pair:
    return pair(lambda: tk.SAM(0.05), small_cnn, torch.randn(128, 3, 16, 16), adaptive=False)


@case(
    "ASAM step, MLP 64-256-256-10 without biases, batch 128",
    peer="pytorch-optimizer",
    note="biases are measured against their size by the peer, and not by ours, as in the paper's code",
)
def adaptive() -> Pair:
    return pair(lambda: tk.ASAM(0.05, eta=0.0), lambda: perceptron(bias=False), torch.randn(128, 64), adaptive=True)
