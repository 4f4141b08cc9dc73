"""Reparametrised weights beside torch.nn.utils.parametrizations: a training step of a perceptron, batch 128."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import tikhon as tk
from benchmarks.harness import Pair, case


def perceptron(width: int) -> nn.Sequential:
    layers = [nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
    return nn.Sequential(*layers)


def convolutions() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


def step_of(plain: nn.Module, inputs: Tensor, method: tk.Method, put: Callable[[nn.Module], nn.Module]) -> Pair:
    """Forward, loss, backward and a step of SGD."""
    target = torch.arange(len(inputs)) % 10
    recipe = tk.Recipe(method)
    mine, other = recipe.prepare(copy.deepcopy(plain)), copy.deepcopy(plain)
    for module in other.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            put(module)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-6) for model in (mine, other)]
    recipe.attach(optimizers[0])

    def ours() -> Tensor:
        optimizers[0].zero_grad()
        loss = recipe.loss(inputs, target)
        loss.backward()
        optimizers[0].step()
        return loss

    def theirs() -> Tensor:
        optimizers[1].zero_grad()
        loss = F.cross_entropy(other(inputs), target)
        loss.backward()
        optimizers[1].step()
        return loss

    def settled() -> bool:
        """The same losses once the power iterations have found the leading vectors."""
        for _ in range(300):
            found = ours(), theirs()
        return bool(torch.isclose(*found, rtol=1e-3))

    return Pair(ours, theirs, same=settled)


def spectral(module: nn.Module) -> nn.Module:
    return spectral_norm(module)


@case("spectral norm, a training step, perceptron 784-512-512-10", peer="torch")
def spectral_perceptron() -> Pair:
    return step_of(perceptron(512), torch.randn(128, 784), tk.SpectralNorm(), spectral)


@case("spectral norm, a training step, three convolutions, 3 x 32 x 32", peer="torch")
def spectral_convolutions() -> Pair:
    return step_of(convolutions(), torch.randn(128, 3, 32, 32), tk.SpectralNorm(), spectral)


@case("weight norm, a training step, perceptron 784-512-512-10", peer="torch")
def weight_perceptron() -> Pair:
    return step_of(perceptron(512), torch.randn(128, 784), tk.WeightNorm(), weight_norm)


@case("weight norm, a training step, three convolutions, 3 x 32 x 32", peer="torch")
def weight_convolutions() -> Pair:
    return step_of(convolutions(), torch.randn(128, 3, 32, 32), tk.WeightNorm(), weight_norm)
