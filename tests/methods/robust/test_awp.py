"""AWP: the shares of layers' norms, a step by hand, one pass of attack for both passes of the loss."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.math.ascent import relative_ascent_offsets

X = torch.rand(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def attached(model, *methods):
    recipe = tikhon.Recipe(*methods)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    return recipe, optimizer


def test_every_layer_moves_by_its_share_along_its_gradient():
    weights = [torch.randn(3, 4, dtype=torch.float64), 10.0 * torch.randn(5, 2, dtype=torch.float64)]
    gradients = [1e-3 * torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)]
    for weight, gradient, found in zip(
        weights, gradients, relative_ascent_offsets(weights, gradients, 0.02), strict=True
    ):
        assert float(found.norm() / weight.norm()) == pytest.approx(0.02, rel=1e-12)
        assert float(F.cosine_similarity(found.flatten(), gradient.flatten(), dim=0)) == pytest.approx(1.0, rel=1e-12)


def test_zero_and_tiny_gradients_are_safe():
    weights = [torch.ones(4), torch.ones(4)]
    found = relative_ascent_offsets(weights, [torch.zeros(4), torch.full((4,), 1e-30)], 0.1)
    assert not found[0].any()
    torch.testing.assert_close(found[1], torch.full((4,), 0.1))


def test_a_step_by_hand_and_weights_return():
    model, twin = network(), network()
    before = copy.deepcopy(model.state_dict())
    recipe, optimizer = attached(model, tikhon.AWP(gamma=0.1))
    loss = recipe.loss(X, Y)
    loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    F.cross_entropy(twin(X), Y).backward()
    with torch.no_grad():
        for one in twin.parameters():
            if one.ndim > 1:
                one += 0.1 * one.norm() * one.grad / one.grad.norm()
    twin.zero_grad()
    worst = F.cross_entropy(twin(X), Y)
    worst.backward()
    assert float(loss.detach()) == pytest.approx(float(worst.detach()), rel=1e-12)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-14)
    optimizer.step()


def test_a_second_owner_is_refused():
    with pytest.raises(tikhon.TikhonError, match=r"awp and sam cannot run together"):
        tikhon.Recipe(tikhon.AWP(), tikhon.SAM())


def test_a_negative_share_is_refused():
    with pytest.raises(tikhon.TikhonError, match="gamma"):
        tikhon.AWP(-0.01)
