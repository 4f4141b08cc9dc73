"""Linear regression, whose optimum is a closed form: what the tests of anchors train."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tikhon

DOUBLE = torch.float64


def half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output.squeeze(1) - target).square()


def regression(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 3, dtype=DOUBLE, generator=generator) * torch.tensor([1.0, 0.5, 2.0], dtype=DOUBLE)
    return inputs, inputs @ torch.randn(3, dtype=DOUBLE, generator=generator) + 0.3


def linear(weight: Tensor) -> nn.Linear:
    model = nn.Linear(3, 1, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        model.weight.copy_(weight)
    return model


def attached(model: nn.Module, method: tikhon.Method, lr: float = 0.1, **arguments: object) -> tikhon.Recipe:
    recipe = tikhon.Recipe(method, **arguments)
    recipe.prepare(model)
    return recipe.attach(torch.optim.SGD(model.parameters(), lr=lr))


def train(recipe: tikhon.Recipe, model: nn.Module, inputs: Tensor, target: Tensor, lr: float, steps: int) -> None:
    recipe.detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    recipe.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(inputs, target).backward()
        optimizer.step()
