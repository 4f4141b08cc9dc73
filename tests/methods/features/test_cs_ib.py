"""The information bottleneck: triple loops, independent samples, Gaussians in closed form, and the recipe."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.features.cs_ib import cs_conditional_divergence, cs_mutual_information, gaussian_kernel


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def kernels(n=7):
    x, y = drawn(n, 3), drawn(n, 2)
    return gaussian_kernel(x, x), gaussian_kernel(y, y)


def test_the_kernel_is_that_of_distances() -> None:
    a, b = drawn(5, 3), drawn(4, 3)
    torch.testing.assert_close(gaussian_kernel(a, b, 0.7), torch.exp(-torch.cdist(a, b).square() / (2 * 0.49)))


def test_mutual_information_is_the_triple_loop() -> None:
    k, q = kernels()
    n = len(k)
    joint = sum(k[i, j] * q[i, j] for i in range(n) for j in range(n)) / n**2
    product = sum(k[i, j] for i in range(n) for j in range(n)) * q.sum() / n**4
    cross = sum(k[i, j] * q[i, m] for i in range(n) for j in range(n) for m in range(n)) / n**3
    found = cs_mutual_information(k, q)
    assert found.item() == pytest.approx(math.log(joint) + math.log(product) - 2 * math.log(cross))
    assert found > 0


def test_it_is_zero_on_a_product_of_samples_and_one_with_itself_when_normalised() -> None:
    x, y = drawn(4, 2), drawn(5, 1)
    grid_x, grid_y = x.repeat_interleave(5, 0), y.repeat(4, 1)
    independent = cs_mutual_information(gaussian_kernel(grid_x, grid_x), gaussian_kernel(grid_y, grid_y))
    assert independent.item() == pytest.approx(0.0, abs=1e-12)
    k, _ = kernels()
    assert cs_mutual_information(k, k, normalised=True).item() == pytest.approx(1.0)


def test_divergence_is_the_loop_and_zero_for_the_targets_themselves() -> None:
    x, y, guess = drawn(6, 3), drawn(6, 1), drawn(6, 1) + 0.3
    k = gaussian_kernel(x, x)
    pairs = [(y, y), (guess, guess), (guess, y)]
    parts = [
        math.log(sum((k[i] * gaussian_kernel(a, b)[i]).sum() / k[i].sum() ** 2 for i in range(6))) for a, b in pairs
    ]
    found = cs_conditional_divergence(k, *[gaussian_kernel(a, b) for a, b in pairs])
    assert found.item() == pytest.approx(parts[0] + parts[1] - 2 * parts[2])
    assert found > 0
    own = gaussian_kernel(y, y)
    assert cs_conditional_divergence(k, own, own, own).item() == pytest.approx(0.0, abs=1e-12)


def ready(**arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1)).double()
    recipe = tikhon.Recipe(tikhon.CSInformationBottleneck(**arguments), base=F.mse_loss)
    recipe.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    recipe.attach(optimizer)
    return recipe, model, optimizer


def information_after(strength: float) -> tuple[float, float]:
    x = drawn(64, 3)
    y = torch.sin(x[:, :1])
    recipe, model, optimizer = ready(strength=strength)
    for _ in range(200):
        optimizer.zero_grad()
        recipe.loss(x, y).backward()
        optimizer.step()
    return recipe.log()["loss/cs_ib/information"], F.mse_loss(model(x), y).item()


def test_it_fits_and_a_larger_strength_keeps_less_of_the_input() -> None:
    (loose, error), (tight, _) = information_after(0.001), information_after(3.0)
    assert error < 0.1
    assert tight < 0.7 * loose


def test_far_apart_samples_stay_finite() -> None:
    recipe, model, _ = ready()
    x = 1e4 * drawn(8, 3)
    recipe.loss(x, 1e4 * x[:, :1]).backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="values"):
        tikhon.Recipe(tikhon.CSInformationBottleneck())
    with pytest.raises(TikhonError, match="width"):
        tikhon.CSInformationBottleneck(width=0.0)
    recipe, _, _ = ready()
    with pytest.raises(TikhonError, match="samples of a batch"):
        recipe.loss(drawn(1, 3), drawn(1, 1))
    with pytest.raises(TikhonError, match="no module"):
        ready(at="7")
