"""Variance risk extrapolation: numpy's variance of the domains' risks, its gradient, absent domains, equal risks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.vrex import risk_variance


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(domains, base=F.cross_entropy, beta=10.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(tikhon.VREx(domains, beta=beta), base=base)
    recipe.prepare(model, samples=max(len(domains), 20))
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model


def test_it_is_the_variance_of_numpy() -> None:
    risks = drawn(5).abs()
    assert risk_variance(risks, torch.ones(5).double()).item() == pytest.approx(np.var(risks.numpy()))
    present = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert risk_variance(risks, present).item() == pytest.approx(np.var(risks[[0, 2, 3]].numpy()))
    for few in ([0, 0, 0, 0, 0], [0, 1, 0, 0, 0]):
        assert risk_variance(risks, torch.tensor(few).double()) == 0.0


def test_penalty_and_gradient_are_those_of_a_loop_over_domains() -> None:
    x, y, ids = drawn(20, 4), torch.arange(20) % 3, torch.randperm(20, generator=torch.Generator().manual_seed(1))
    domains = torch.tensor([0, 0, 2, 3] * 5)  # there is no domain 1
    recipe, model = ready(domains)
    recipe.loss(x[ids], y[ids], index=ids).backward()
    found = [one.grad.clone() for one in model.parameters()]
    risks = torch.stack([F.cross_entropy(model(x[domains == e]), y[domains == e]) for e in (0, 2, 3)])
    loss = F.cross_entropy(model(x), y) + 10.0 * (risks - risks.mean()).square().mean()
    assert recipe.log()["loss/vrex"] == pytest.approx(np.var(risks.detach().numpy()))
    for one, other in zip(found, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_equal_domains_cost_nothing() -> None:
    recipe, _ = ready(torch.arange(20) // 10)
    recipe.loss(drawn(10, 4).repeat(2, 1), (torch.arange(10) % 3).repeat(2), index=torch.arange(20))
    assert recipe.log()["loss/vrex"] == pytest.approx(0.0, abs=1e-20)


def test_strong_it_keeps_risks_equal_where_plain_training_does_not() -> None:
    x, domains = drawn(20, 4), torch.arange(20) % 2
    y = (x @ drawn(4, 3)) * torch.where(domains == 0, 3.0, 0.5)[:, None]
    gaps = []
    for beta in (0.0, 10.0):
        recipe, model = ready(domains, base=F.mse_loss, beta=beta)
        recipe.detach()
        recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01))
        for _ in range(300):
            optimizer.zero_grad()
            recipe.loss(x, y, index=torch.arange(20)).backward()
            optimizer.step()
        losses = (model(x) - y).square().mean(1).detach()
        gaps.append(float((losses[domains == 0].mean() - losses[domains == 1].mean()).abs()))
    assert gaps[1] < 0.2 * gaps[0], gaps


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="of integers"):
        tikhon.VREx(torch.zeros(4))
    with pytest.raises(TikhonError, match="beta"):
        tikhon.VREx(torch.tensor([0, 1]), beta=-1.0)
    recipe, _ = ready(torch.tensor([0, 1]))
    with pytest.raises(TikhonError, match="vrex knows the domains of 2 samples"):
        recipe.loss(drawn(3, 4), torch.tensor([0, 1, 0]), index=torch.tensor([0, 1, 2]))
