"""Jacobian penalty: full Jacobians, the mean over projections, and linear networks in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

X = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (6,), generator=torch.Generator().manual_seed(1))


def attached(model, *methods, seed=0, **settings):
    recipe = tikhon.Recipe(*methods, seed=seed, **settings)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def penalty(model, method, seed=0):
    recipe = attached(model, method, seed=seed)
    return (recipe.loss(X, Y) - F.cross_entropy(model(X), Y)).item()


def squared_norms(model):
    return torch.stack([torch.autograd.functional.jacobian(model, x).square().sum() for x in X])


def test_all_projections_are_the_full_jacobian():
    model = network()
    found = penalty(model, tikhon.JacobianPenalty(0.4, projections=None))
    assert found == pytest.approx(0.2 * squared_norms(model).mean().item(), rel=1e-11)


def test_the_mean_over_random_projections_is_the_norm():
    model = network()
    found = [penalty(model, tikhon.JacobianPenalty(1.0, projections=50), seed) for seed in range(20)]
    expected = 0.5 * squared_norms(model).mean().item()
    assert sum(found) / 20 == pytest.approx(expected, rel=0.02)
    assert max(found) != min(found)


def test_the_gradient_of_a_linear_network_is_the_weight():
    model = nn.Linear(4, 3).double()
    recipe = attached(model, tikhon.JacobianPenalty(0.3, projections=None))
    recipe.loss(X, Y).backward()
    (plain,) = torch.autograd.grad(F.cross_entropy(model(X), Y), model.weight)
    torch.testing.assert_close(model.weight.grad, plain + 0.3 * model.weight.detach())


def test_outputs_of_any_shape():
    model = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 1, bias=False)).double()
    recipe = attached(model, tikhon.JacobianPenalty(1.0, projections=None), base=F.mse_loss)
    target = model(X).detach()
    weight = model[1].weight.detach()
    assert recipe.loss(X, target).item() == pytest.approx(0.5 * 4 * weight.square().sum().item(), rel=1e-12)


@pytest.mark.parametrize("projections", [0, -1, 1.5, True])
def test_projections_that_are_no_number_of_them_are_refused(projections):
    with pytest.raises(tikhon.TikhonError, match="projections"):
        tikhon.JacobianPenalty(projections=projections)
