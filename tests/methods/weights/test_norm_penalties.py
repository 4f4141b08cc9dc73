"""L1, L2 and elastic net: closed forms, scikit-learn's solutions, and what weight norm and zero do to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import linear_model
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import tikhon
from tikhon.math.norms import absolute_norm, half_squared_norm


def half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output.squeeze(1) - target).square()


def correlated_problem() -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(3)
    common = random.normal(size=(60, 1))
    inputs = np.hstack([common + 0.3 * random.normal(size=(60, 3)), random.normal(size=(60, 3))])
    target = inputs @ np.array([1.5, 0.5, 0.0, -1.0, 0.0, 0.0]) + 0.1 * random.normal(size=60)
    return torch.from_numpy(inputs), torch.from_numpy(target)


def trained(method: tikhon.Method, inputs: Tensor, target: Tensor, steps: int = 1500, lr: float = 0.3) -> Tensor:
    model = nn.Linear(inputs.shape[1], 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.fill_(0.3)
    recipe = tikhon.Recipe(method, base=half_squared_error)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    recipe.attach(optimizer)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1.0 - step / steps)
        optimizer.zero_grad()
        recipe.loss(inputs, target).backward()
        optimizer.step()
    return model.weight.detach().flatten()


def test_l1_finds_the_lasso() -> None:
    inputs, target = correlated_problem()
    expected = linear_model.Lasso(alpha=0.2, fit_intercept=False, tol=1e-10).fit(inputs, target).coef_
    found = trained(tikhon.L1(0.2), inputs, target)
    assert (expected == 0.0).any()
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_l1_comes_near_zero_but_not_to_it() -> None:
    inputs, target = correlated_problem()
    expected = linear_model.Lasso(alpha=0.2, fit_intercept=False, tol=1e-10).fit(inputs, target).coef_
    irrelevant = trained(tikhon.L1(0.2), inputs, target)[torch.from_numpy(expected == 0.0)]
    assert irrelevant.abs().max() < 1e-3
    assert (irrelevant != 0.0).all()


@pytest.mark.parametrize(("alpha", "ratio"), [(0.3, 0.5), (1.0, 0.1)])
def test_elastic_net_finds_scikit_learns(alpha: float, ratio: float) -> None:
    inputs, target = correlated_problem()
    reference = linear_model.ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-10)
    expected = reference.fit(inputs, target).coef_
    found = trained(tikhon.ElasticNet(l1=alpha * ratio, l2=alpha * (1.0 - ratio)), inputs, target)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_l2_finds_the_ridge_in_closed_form() -> None:
    inputs, target = correlated_problem()
    gram = inputs.T @ inputs / len(inputs)
    expected = torch.linalg.solve(gram + 0.4 * torch.eye(6, dtype=torch.float64), inputs.T @ target / len(inputs))
    torch.testing.assert_close(trained(tikhon.L2(0.4), inputs, target), expected, rtol=1e-6, atol=1e-8)


def test_gradients_are_the_sign_and_the_weight() -> None:
    weights = [torch.tensor([0.0, -2.0, 3.0], requires_grad=True), torch.zeros(2, 2, requires_grad=True)]
    assert absolute_norm(weights) == 5.0
    absolute_norm(weights).backward()
    assert torch.equal(weights[0].grad, torch.tensor([0.0, -1.0, 1.0]))
    assert torch.equal(weights[1].grad, torch.zeros(2, 2))
    for weight in weights:
        weight.grad = None
    half_squared_norm(weights).backward()
    torch.testing.assert_close(weights[0].grad, torch.tensor([0.0, -2.0, 3.0]))
    assert torch.equal(weights[1].grad, torch.zeros(2, 2))


@pytest.mark.parametrize("norm", [absolute_norm, half_squared_norm])
def test_gradcheck(norm: object) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((3, 2), (4,))]
    assert torch.autograd.gradcheck(lambda *some: norm(some), [weight.requires_grad_() for weight in weights])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (tikhon.L1(0.1), lambda w: 0.1 * w.abs().sum()),
        (tikhon.L2(0.1), lambda w: 0.05 * w.square().sum()),
        (tikhon.ElasticNet(0.1, 0.3), lambda w: 0.1 * w.abs().sum() + 0.15 * w.square().sum()),
    ],
    ids=["l1", "l2", "elastic_net"],
)
def test_the_effective_weight_of_weight_norm_counts_once(method: tikhon.Method, expected: object) -> None:
    model = weight_norm(nn.Linear(3, 2))
    with torch.no_grad():
        model.parametrizations.weight.original0.mul_(2.0)
    recipe = tikhon.Recipe(method, base=lambda output, target: 0.0 * output.sum(1))
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    loss = recipe.loss(torch.ones(4, 3), torch.zeros(4))
    torch.testing.assert_close(loss.detach(), expected(model.weight.detach()))


def test_wrong_strengths_are_refused() -> None:
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.L1(-1.0)
    with pytest.raises(tikhon.TikhonError, match="l2"):
        tikhon.ElasticNet(l2=float("nan"))
