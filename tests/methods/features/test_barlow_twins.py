"""Barlow Twins: numpy's correlations of two views, training without labels, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tikhon
from tikhon import TikhonError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ready(redundancy: float = 0.1) -> tuple[tikhon.Recipe, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    recipe = tikhon.Recipe(tikhon.BarlowTwins(redundancy))
    recipe.prepare(model)
    recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01))
    return recipe, model, optimizer


def views(seed: int) -> Tensor:
    x = drawn(64, 5)
    return torch.cat([x + 0.1 * drawn(64, 5, seed=2 * seed + 1), x + 0.1 * drawn(64, 5, seed=2 * seed + 2)])


def test_the_loss_is_that_of_numpys_correlations() -> None:
    recipe, model, _ = ready(redundancy=0.3)
    x = views(0)
    loss = recipe.loss(x)
    z1, z2 = (half.detach().numpy() for half in model(x).chunk(2))
    c = np.corrcoef(z1.T, z2.T)[:4, 4:]
    invariance = ((1 - np.diag(c)) ** 2).sum()
    redundancy = (c**2).sum() - (np.diag(c) ** 2).sum()
    assert loss.item() == pytest.approx(invariance + 0.3 * redundancy)
    assert recipe.log()["loss/barlow_twins/redundancy"] == pytest.approx(redundancy)


def test_without_labels_it_decorrelates_features_and_agrees_on_views() -> None:
    recipe, model, optimizer = ready(redundancy=0.05)
    for step in range(150):
        optimizer.zero_grad()
        recipe.loss(views(step)).backward()
        optimizer.step()
    z1, z2 = (half.detach().numpy() for half in model(views(999)).chunk(2))
    c = np.corrcoef(z1.T, z2.T)[:4, 4:]
    assert np.diag(c).min() > 0.9
    assert np.abs(c - np.diag(np.diag(c))).max() < 0.25


def test_it_is_the_mixed_one_without_mixing() -> None:
    recipe, model, _ = ready(redundancy=0.3)
    other = tikhon.Recipe(tikhon.MixedBarlowTwins(redundancy=0.3, mixing=0.0))
    other.prepare(model)
    other.attach(torch.optim.Adam(model.parameters()))
    assert torch.equal(recipe.loss(views(0)), other.loss(views(0)))


def test_what_does_not_fit_is_refused() -> None:
    recipe, _, _ = ready()
    for wrong in (drawn(5, 5), drawn(2, 5)):
        with pytest.raises(TikhonError, match=r"barlow_twins needs the features .* two views"):
            recipe.loss(wrong)
    with pytest.raises(TikhonError, match="cannot run together"):
        tikhon.Recipe(tikhon.BarlowTwins(), tikhon.ELR())
    with pytest.raises(TikhonError, match="redundancy"):
        tikhon.BarlowTwins(redundancy=-1.0)
