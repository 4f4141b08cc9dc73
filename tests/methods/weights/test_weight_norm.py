"""Weight norm: torch's own parametrization step by step, the gradients of the paper, export, and zero units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import tikhon
from tikhon.methods.weights.weight_norm import of_length

DOUBLE = torch.float64


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 6, 6, dtype=DOUBLE, generator=generator), torch.randint(3, (8,), generator=generator)


def ready(model: nn.Module):
    recipe = tikhon.Recipe(tikhon.WeightNorm())
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    return recipe, optimizer


def test_training_is_that_of_torch() -> None:
    ours, theirs = network(), network()
    for i in (0, 3):
        parametrizations.weight_norm(theirs[i])
    recipe, optimizer = ready(ours)
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for number in range(5):
        x, y = batch(number)
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
        plain.zero_grad()
        F.cross_entropy(theirs(x), y).backward()
        plain.step()
    for i in (0, 3):
        own, other = ours[i].parametrizations.weight, theirs[i].parametrizations.weight
        torch.testing.assert_close(own.original0, other.original0, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(own.original1, other.original1, rtol=1e-9, atol=1e-11)
    x, _ = batch(9)
    expected = theirs(x)
    exported = recipe.export()
    torch.testing.assert_close(exported(x), expected)
    assert isinstance(exported[0].weight, nn.Parameter)
    plainly = network()
    assert (exported[0].weight - plainly[0].weight).abs().max() > 1e-3


def test_the_network_is_the_same_at_the_start() -> None:
    model, (x, _) = network(), batch(0)
    expected = model(x)
    ready(model)
    torch.testing.assert_close(model(x), expected)


def test_gradients_are_those_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    g = torch.rand(3, 1, dtype=DOUBLE, generator=generator).requires_grad_()
    v = torch.randn(3, 5, dtype=DOUBLE, generator=generator).requires_grad_()
    into = torch.randn(3, 5, dtype=DOUBLE, generator=generator)
    (of_length(g, v) * into).sum().backward()
    length = v.detach().norm(dim=1, keepdim=True)
    along = (into * v.detach()).sum(1, keepdim=True) / length
    torch.testing.assert_close(g.grad, along)
    torch.testing.assert_close(v.grad, g.detach() / length * (into - along * v.detach() / length))
    assert (v.grad * v.detach()).sum(1).abs().max() < 1e-12  # a step turns v and never shortens it


def test_wrong_input() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[1] = 0.0
    with pytest.raises(tikhon.TikhonError, match="unit of zeros"):
        tikhon.Recipe(tikhon.WeightNorm()).prepare(model)
    with pytest.raises(tikhon.TikhonError, match="no units"):
        tikhon.Recipe(tikhon.WeightNorm(where="all")).prepare(nn.Linear(3, 2))
    with pytest.raises(tikhon.TikhonError, match="parametrised already"):
        tikhon.Recipe(tikhon.WeightNorm()).prepare(parametrizations.weight_norm(nn.Linear(3, 2)))
