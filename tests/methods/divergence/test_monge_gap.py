"""The Monge gap: assignments, its bound, its gradient, any cost, and a map that stops swirling."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.math.kernels import squared_distances
from tikhon.methods.divergence.monge_gap import monge_gap


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_distances_are_the_loops_far_from_the_origin_too() -> None:
    x, y = drawn(5, 3), drawn(4, 3, seed=1)
    torch.testing.assert_close(squared_distances(x, y), torch.cdist(x, y).square())
    far = squared_distances(x.float() + 1e3, y.float() + 1e3)
    torch.testing.assert_close(far.double(), torch.cdist(x, y).square(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("cost", [squared_distances, torch.cdist])
def test_without_entropy_it_is_the_excess_over_the_best_assignment(cost) -> None:
    x, y = drawn(10, 2), drawn(10, 2, seed=1)
    costs = cost(x, y)
    rows, columns = linear_sum_assignment(costs.numpy())
    excess = costs.diagonal().mean() - costs[rows, columns].mean()
    epsilon = 1e-3
    found = monge_gap(x, y, epsilon, cost=cost, iterations=20_000) - epsilon * math.log(10)
    assert float(excess) > 0.1
    torch.testing.assert_close(found, excess, rtol=0.0, atol=2e-3)


def test_it_is_at_least_the_entropy_of_a_map_and_that_for_the_best() -> None:
    x = drawn(8, 2)
    even = math.log(8)
    gradient_of_a_convex_function = 2.0 * x + 1.0
    assert float(monge_gap(x, gradient_of_a_convex_function, 0.01, iterations=2000)) == pytest.approx(0.01 * even, 1e-3)
    for epsilon in (0.01, 0.1, 1.0):
        assert float(monge_gap(x, drawn(8, 2, seed=2), epsilon)) >= epsilon * even
    turned = x @ torch.tensor([[-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    assert float(monge_gap(x, turned, 0.01)) > 0.5


def test_the_gradient_is_that_of_finite_differences() -> None:
    x, y = drawn(6, 2), drawn(6, 2, seed=1)
    both = [x.requires_grad_(), y.requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, y: monge_gap(x, y, 0.5, iterations=500), both)


def test_relative_epsilon_knows_no_unit() -> None:
    x, y = drawn(7, 3), drawn(7, 3, seed=1)
    torch.testing.assert_close(100.0 * monge_gap(x, y, relative=True), monge_gap(10 * x, 10 * y, relative=True))
    torch.testing.assert_close(
        monge_gap(x, y, 0.1, relative=True), monge_gap(x, y, 0.1 * float(squared_distances(x, y).mean()))
    )
    assert monge_gap(torch.zeros(3, 2), torch.zeros(3, 2), relative=True).isfinite()


def trained(strength: float) -> float:
    """The mean squared displacement of a linear map that must fit the covariance of a standard normal sample only."""
    x = drawn(256, 2)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    angle = torch.tensor(2.0, dtype=torch.float64)
    model = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        output = model(x)
        loss = F.mse_loss(torch.cov(output.T), torch.eye(2, dtype=torch.float64))
        (loss + strength * monge_gap(x[:64], output[:64], relative=True, iterations=30)).backward()
        optimizer.step()
    with torch.no_grad():
        output = model(x)
        assert F.mse_loss(torch.cov(output.T), torch.eye(2, dtype=torch.float64)) < 0.05
        return float((output - x).square().sum(1).mean())


def test_a_rotation_that_fits_as_well_is_undone() -> None:
    assert trained(0.0) > 4.0  # any rotation fits: without the gap the first one stays
    assert trained(0.3) < 0.1


def test_the_recipe_adds_it_to_the_loss() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4)).double()
    recipe = tikhon.Recipe(
        tikhon.MongeGap(strength=0.5, epsilon=0.2), base=F.mse_loss, output=lambda y: y.reshape(-1, 2, 2)
    )
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    x, target = drawn(6, 2, 2), drawn(6, 2, 2, seed=1)
    y = model(x)
    expected = F.mse_loss(y.reshape(6, 2, 2), target) + 0.5 * monge_gap(x.flatten(1), y, 0.2, relative=True)
    torch.testing.assert_close(recipe.loss(x, target), expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="values"):
        tikhon.Recipe(tikhon.MongeGap())
    for arguments, message in (
        ({"strength": -1.0}, "strength"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"iterations": 0}, "iterations"),
    ):
        with pytest.raises(TikhonError, match=message):
            tikhon.MongeGap(**arguments)
    with pytest.raises(TikhonError, match="both"):
        monge_gap(drawn(4, 2), drawn(4, 3))
    model = nn.Linear(3, 2)
    recipe = tikhon.Recipe(tikhon.MongeGap(), base=F.mse_loss)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TikhonError, match="output="):
        recipe.loss(torch.randn(4, 3), torch.randn(4, 2))
