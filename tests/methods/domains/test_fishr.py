"""Fishr: variances of gradients by torch.func, the moving average as the official code keeps it, absent domains."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.fishr import gradient_variances


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(domains, bias=True, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3, bias=bias)).double()
    recipe = tikhon.Recipe(tikhon.Fishr(domains, **arguments))
    recipe.prepare(model, samples=max(len(domains), 20))
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model, optimizer


def by_samples(model, x, y, domains):
    """The variance of each domain's gradients of the last layer, one gradient a sample by torch.func."""
    head = dict(model[2].named_parameters())

    def one(parameters, features, value):
        return F.cross_entropy(torch.func.functional_call(model[2], parameters, (features[None],)), value[None])

    features = model[:2](x)
    gradients = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(head, features, y)
    flat = torch.cat([value.flatten(1) for value in gradients.values()], dim=1)
    return torch.stack([flat[domains == e].var(0, correction=0) for e in domains.unique()])


@pytest.mark.parametrize("bias", [True, False])
def test_variances_penalty_and_gradient_are_those_of_sample_gradients(bias) -> None:
    x, y, ids = drawn(20, 4), torch.arange(20) % 3, torch.randperm(20, generator=torch.Generator().manual_seed(1))
    domains = torch.tensor([0, 0, 2, 3] * 5)  # there is no domain 1
    recipe, model, _ = ready(domains, bias=bias, strength=5.0, decay=0.0)
    recipe.loss(x[ids], y[ids], index=ids).backward()
    found = [one.grad.clone() for one in model.parameters()]
    variances = by_samples(model, x, y, domains)
    penalty = (variances - variances.mean(0)).square().sum(1).mean()
    assert recipe.log()["loss/fishr"] == pytest.approx(penalty.item())
    total = F.cross_entropy(model(x), y) + 5.0 * penalty
    for one, other in zip(found, torch.autograd.grad(total, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_the_average_over_steps_is_the_official_codes() -> None:
    x, y, domains = drawn(20, 4), torch.arange(20) % 3, torch.arange(20) % 2
    recipe, model, optimizer = ready(domains, strength=0.1, decay=0.9)
    average = torch.zeros(2, 27, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        recipe.loss(x, y, index=torch.arange(20)).backward()
        found = [one.grad.clone() for one in model.parameters()]
        variances = by_samples(model, x, y, domains)
        # A running mean that starts at zero, corrected by 1 / (1 - decay), whose earlier part is a constant.
        corrected = (0.9 * average + 0.1 * variances) / 0.1
        penalty = (corrected - corrected.mean(0)).square().sum(1).mean()
        assert recipe.log()["loss/fishr"] == pytest.approx(penalty.item())
        total = F.cross_entropy(model(x), y) + 0.1 * penalty
        for one, other in zip(found, torch.autograd.grad(total, list(model.parameters())), strict=True):
            torch.testing.assert_close(one, other)
        average = (0.9 * average + 0.1 * variances).detach()
        optimizer.step()


def test_a_step_that_does_not_happen_moves_no_average_and_an_absent_domain_keeps_its_own() -> None:
    x, y, domains = drawn(20, 4), torch.arange(20) % 3, torch.arange(20) // 10
    recipe, model, optimizer = ready(domains)
    recipe.loss(x, y, index=torch.arange(20)).backward()
    table = recipe.methods["fishr"].variances
    assert not table.table.any()  # committed with the step alone
    optimizer.step()
    before = table.table.clone()
    assert (before > 0).any(1).all()
    optimizer.zero_grad()
    recipe.loss(x[:10], y[:10], index=torch.arange(10)).backward()
    assert recipe.log()["loss/fishr"] == 0.0  # a single domain
    optimizer.step()
    assert torch.equal(table.table[1], before[1])
    assert not torch.equal(table.table[0], before[0])
    assert all(one.isfinite().all() for one in model.parameters())


def test_equal_gradients_do_not_vary() -> None:
    variances = gradient_variances(torch.ones(4, 2), torch.full((4, 3), 2.0), torch.ones(1, 4))
    assert torch.equal(variances, torch.zeros(1, 8))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="of integers"):
        tikhon.Fishr(torch.zeros(4))
    with pytest.raises(TikhonError, match="decay"):
        tikhon.Fishr(torch.tensor([0, 1]), decay=1.0)
    with pytest.raises(TikhonError, match="linear classifier"):
        ready(torch.tensor([0, 1]), at="1")
