"""Invariant risk minimisation: slopes in closed form and by autograd, absent domains, mixing, and what it unlearns."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.irm import invariance_penalty


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(domains, base=F.cross_entropy, extra=(), **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(tikhon.IRM(domains, **arguments), *extra, base=base)
    recipe.prepare(model, samples=max(len(domains), 20))
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe, model


def by_hand(model, x, y, domains, unbiased=False):
    """One dummy classifier a domain, and halves as the paper's listing takes them: every other sample."""
    penalties = []
    for domain in domains.unique():
        w = torch.ones((), dtype=torch.float64, requires_grad=True)
        losses = F.cross_entropy(w * model(x[domains == domain]), y[domains == domain], reduction="none")
        halves = (losses[0::2], losses[1::2]) if unbiased else (losses, losses)
        one, other = (torch.autograd.grad(half.mean(), w, create_graph=True)[0] for half in halves)
        penalties.append(one * other)
    return torch.stack(penalties).mean()


@pytest.mark.parametrize("unbiased", [False, True])
def test_penalty_and_gradient_are_those_of_a_dummy_classifier_for_each_domain(unbiased) -> None:
    x, y, ids = drawn(20, 4), torch.arange(20) % 3, torch.randperm(20, generator=torch.Generator().manual_seed(1))
    domains = torch.tensor([0, 0, 2, 3] * 5)  # there is no domain 1
    recipe, model = ready(domains, strength=7.0, unbiased=unbiased)
    recipe.loss(x[ids], y[ids], index=ids).backward()
    found = [one.grad.clone() for one in model.parameters()]
    penalty = by_hand(model, x[ids], y[ids], domains[ids], unbiased)
    assert recipe.log()["loss/irm"] == pytest.approx(penalty.item())
    assert penalty.abs() > 1e-6
    loss = F.cross_entropy(model(x[ids]), y[ids]) + 7.0 * penalty
    for one, other in zip(found, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_slope_of_squared_error_in_closed_form() -> None:
    x, y, domains = drawn(20, 4), drawn(20, 3), torch.arange(20) % 2
    recipe, model = ready(domains, base=F.mse_loss)
    recipe.loss(x, y, index=torch.arange(20))
    output = model(x).detach()
    slopes = 2.0 * ((output - y) * output).mean(1)  # d/dw of the mean of (w f - y)^2
    expected = sum(slopes[domains == domain].mean() ** 2 for domain in (0, 1)) / 2
    assert recipe.log()["loss/irm"] == pytest.approx(expected.item())


def test_weights_of_samples_count_in_the_risk_of_their_domain() -> None:
    x, y, domains = drawn(20, 4), torch.arange(20) % 3, torch.arange(20) % 2
    recipe, _ = ready(domains)
    weight = (torch.arange(20) % 5 != 0).double()
    recipe.loss(x, y, index=torch.arange(20), weight=weight)
    with_weights = recipe.log()["loss/irm"]
    kept = weight.nonzero().flatten()
    recipe, _ = ready(domains)
    recipe.loss(x[kept], y[kept], index=kept)
    assert with_weights == pytest.approx(recipe.log()["loss/irm"])


def test_slopes_that_cancel_in_every_domain_cost_nothing() -> None:
    balanced = torch.tensor([1.0, -1.0, 0.5, -0.5])
    members = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert invariance_penalty(balanced, members) == 0.0
    assert invariance_penalty(balanced, members, unbiased=True) < 0.0


def test_one_sample_of_a_domain_has_no_second_half() -> None:
    members = torch.eye(2)
    assert invariance_penalty(torch.tensor([1.0, 2.0]), members, unbiased=True) == 0.0
    assert invariance_penalty(torch.tensor([1.0, 2.0]), members) == 2.5


def test_mixed_rows_are_of_their_own_domain_and_finite() -> None:
    recipe, model = ready(torch.arange(20) % 2, extra=(tikhon.MixUp(),))
    recipe.loss(drawn(20, 4), torch.arange(20) % 3, index=torch.arange(20)).backward()
    assert recipe.log()["loss/irm"] > 0.0
    assert all(one.grad.isfinite().all() for one in model.parameters())


def trained(strength):
    """A feature that is right 75% of the time everywhere, and one that is so in 99% and 80%."""
    generator = torch.Generator().manual_seed(0)
    domains = torch.arange(2000) % 2
    y = torch.randint(2, (2000,), generator=generator)
    stable = torch.where(torch.rand(2000, generator=generator) < 0.75, y, 1 - y)
    agreement = torch.where(domains == 0, 0.99, 0.8)
    cue = torch.where(torch.rand(2000, generator=generator) < agreement, y, 1 - y)
    x = 2.0 * torch.stack([stable, cue], dim=1).float() - 1.0
    torch.manual_seed(0)
    recipe = tikhon.Recipe(tikhon.IRM(domains, strength=strength))
    model = recipe.prepare(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2)), samples=2000)
    recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01), steps=300)
    for _ in range(300):
        optimizer.zero_grad()
        recipe.loss(x, y, index=torch.arange(2000)).backward()
        optimizer.step()
    corners = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    return model(corners).argmax(1).tolist()


def test_it_follows_the_cue_that_is_the_same_in_all_domains() -> None:
    assert trained(0.0) == [0, 1]  # the stronger cue
    assert trained(tikhon.stepwise({0.0: 1.0, 0.3: 1e4})) == [1, 0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="of integers"):
        tikhon.IRM(torch.zeros(4))
    with pytest.raises(TikhonError, match="strength"):
        tikhon.IRM(torch.tensor([0, 1]), strength=-1.0)
    recipe, _ = ready(torch.tensor([0, 1]))
    with pytest.raises(TikhonError, match="irm knows the domains of 2 samples"):
        recipe.loss(drawn(3, 4), torch.tensor([0, 1, 0]), index=torch.tensor([0, 1, 2]))
