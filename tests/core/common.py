"""What the engine's tests share: small models, small data, and a plain training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tikhon import Card, Method, PerSampleMemory, Recipe

CARD = Card(
    title="A method of the tests",
    year=2026,
    arxiv="",
    problems=(),
    formula="",
    claim="",
    helps="",
    hurts="",
    cost="",
)


class Remembering(Method):
    """Remembers the softmax of each sample's output, mixed half and half with what it held."""

    card = CARD
    needs = frozenset({"ids"})

    def __init__(self) -> None:
        super().__init__()
        self.memory = PerSampleMemory()

    def remember(self, output: Tensor, target: Any, step: Any) -> None:
        p = output.detach().softmax(1)
        old = self.memory.read(target.ids, like=p)
        self.memory.write(target.ids, 0.5 * old + 0.5 * p)

    @property
    def table(self) -> Tensor:
        """What is committed; zeros before anything is."""
        table = self.memory.table
        return torch.zeros(()) if table is None else table.clone()


def mlp(seed: int = 0, *, inputs: int = 3, classes: int = 3) -> nn.Module:
    """Linear, tanh, linear, in float64, the same weights for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def rows(count: int = 8, seed: int = 0, *, inputs: int = 3, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Inputs (count, inputs) and labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (count,), generator=generator)


def sgd(model: nn.Module, lr: float = 0.1, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def ready(
    recipe: Recipe, model: nn.Module | None = None, *, samples: int | None = 8, lr: float = 0.1, **length: int
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model prepared and attached with plain SGD."""
    prepared = recipe.prepare(mlp() if model is None else model, samples=samples)
    optimizer = sgd(prepared, lr)
    recipe.attach(optimizer, **length)
    return prepared, optimizer


def train(
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    steps: int = 1,
    *,
    x: Tensor | None = None,
    y: Tensor | None = None,
    index: Tensor | None = None,
    before: Callable[[], None] = lambda: None,
) -> list[float]:
    """Some steps of the plain loop on the same batch; the losses."""
    if x is None or y is None:
        x, y = rows()
    index = torch.arange(len(y)) if index is None else index
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = recipe.loss(x, y, index=index)
        loss.backward()
        before()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Equal to the bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
