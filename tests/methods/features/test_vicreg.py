"""VICReg: numpy's variances and covariances, the paper's listing, collapse, and training without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tikhon
from tikhon import TikhonError
from tikhon.methods.features.vicreg import covariance_penalty, variance_hinge


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ready(**arguments: float) -> tuple[tikhon.Recipe, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    recipe = tikhon.Recipe(tikhon.VICReg(**arguments))
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01))
    return recipe, model, optimizer


def views(seed: int) -> Tensor:
    x = drawn(64, 5)
    return torch.cat([x + 0.1 * drawn(64, 5, seed=2 * seed + 1), x + 0.1 * drawn(64, 5, seed=2 * seed + 2)])


def test_parts_are_those_of_numpy() -> None:
    z = 0.7 * drawn(9, 4)
    deviation = np.sqrt(z.numpy().var(0, ddof=1) + 1e-4)
    assert variance_hinge(z).item() == pytest.approx(np.maximum(0, 1 - deviation).mean())
    covariance = np.cov(z.numpy().T)
    off = covariance - np.diag(np.diag(covariance))
    assert covariance_penalty(z).item() == pytest.approx((off**2).sum() / 4)
    assert covariance_penalty(drawn(9, 1)) == 0.0
    assert variance_hinge(10.0 * drawn(9, 4)) == 0.0


def test_the_loss_is_that_of_the_papers_listing() -> None:
    recipe, model, _ = ready()
    x = views(0)
    loss = recipe.loss(x)
    a, b = (half.detach().numpy() for half in model(x).chunk(2))
    expected = 25 * ((a - b) ** 2).mean()
    for z in (a, b):
        expected += 25 * np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean()
        covariance = np.cov(z.T)
        expected += (covariance**2).sum() / 4 - (np.diag(covariance) ** 2).sum() / 4
    assert loss.item() == pytest.approx(expected)


def test_features_that_are_all_the_same_cost_the_most_and_have_a_gradient() -> None:
    z = torch.ones(6, 3, dtype=torch.float64).requires_grad_()
    value = variance_hinge(z)
    assert value.item() == pytest.approx(0.99)
    assert torch.autograd.grad(value, z)[0].isfinite().all()


def test_without_the_variance_features_collapse_and_with_it_they_do_not() -> None:
    spreads = []
    for variance in (0.0, 25.0):
        recipe, model, optimizer = ready(variance=variance)
        for step in range(200):
            optimizer.zero_grad()
            recipe.loss(views(step)).backward()
            optimizer.step()
        features = model(views(999)).detach()
        spreads.append(features.std(0).min().item())
    assert spreads[0] < 0.1
    assert spreads[1] > 0.8
    correlation = np.corrcoef(features.numpy().T)
    assert np.abs(correlation - np.eye(4)).max() < 0.4


def test_what_does_not_fit_is_refused() -> None:
    recipe, _, _ = ready()
    for wrong in (drawn(5, 5), drawn(2, 5)):
        with pytest.raises(TikhonError, match=r"vicreg needs the features .* two views"):
            recipe.loss(wrong)
    with pytest.raises(TikhonError, match="cannot run together"):
        tikhon.Recipe(tikhon.VICReg(), tikhon.ELR())
    with pytest.raises(TikhonError, match="variance"):
        tikhon.VICReg(variance=-1.0)
