"""Gaussian dropout: the distribution of its noise, and dropout's variance as the one to have."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.stochastic.gaussian_dropout import gaussian_dropped

INPUTS = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3


@pytest.mark.parametrize("p", [0.2, torch.tensor(0.2), 0.5, torch.tensor(0.8)])
def test_the_noise_is_normal_with_the_variance_of_dropout(p):
    torch.manual_seed(0)
    features = torch.full((20_000,), 3.0, dtype=torch.float64)
    found = gaussian_dropped(features, p)
    deviation = 3.0 * (float(p) / (1.0 - float(p))) ** 0.5
    assert scipy.stats.kstest(found.numpy(), scipy.stats.norm(3.0, deviation).cdf).pvalue > 1e-3
    assert F.dropout(features, float(p)).std() == pytest.approx(deviation, rel=0.03)
    assert found.std() == pytest.approx(deviation, rel=0.03)


def test_the_gradient_is_the_noise():
    features = torch.randn(50, requires_grad=True)
    found = gaussian_dropped(features, 0.3)
    found.sum().backward()
    torch.testing.assert_close(features.grad * features.detach(), found.detach())


def attached(model, *methods, **length):
    recipe = tikhon.Recipe(*methods)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, **length)
    return recipe, optimizer


def test_the_loss_of_a_linear_model_grows_by_the_weight_penalty_of_the_noise():
    """Squared loss: E (y - w (h * noise))^2 = (y - w h)^2 + a sum_j (w_j h_j)^2 (Srivastava et al. 2014, sec. 9.1)."""
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 1)).double()
    weight, bias = (one.detach() for one in model[1].parameters())
    recipe = tikhon.Recipe(tikhon.GaussianDropout(p=0.4), base=F.mse_loss)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    torch.manual_seed(0)
    target = INPUTS[:, :1]
    losses = torch.stack([recipe.loss(INPUTS, target).detach() for _ in range(3000)])
    penalty = 0.4 / 0.6 * (weight * INPUTS).square().sum(1).mean()
    expected = F.mse_loss(F.linear(INPUTS, weight, bias), target) + penalty
    assert penalty > 20 * losses.std() / 3000**0.5
    assert abs(losses.mean() - expected) < 4 * losses.std() / 3000**0.5


def test_it_acts_where_it_is_told_with_a_schedule_and_nowhere_in_evaluation():
    model = nn.Sequential(nn.Identity(), nn.Identity(), nn.Linear(4, 3)).double()
    plain = F.linear(INPUTS, *model[2].parameters()).detach()
    recipe, optimizer = attached(model, tikhon.GaussianDropout(p=tikhon.linear(0.0, 0.8), at="0"), steps=4)
    spread = []
    watch = model[1].register_forward_hook(lambda module, args, output: spread.append(float((output / INPUTS).std())))
    for _ in range(5):
        recipe.loss(INPUTS, LABELS)  # no backward pass: the step moves nothing but the clock
        optimizer.step()
    watch.remove()
    expected = [(p / (1 - p)) ** 0.5 for p in (0.0, 0.2, 0.4, 0.6, 0.8)]
    assert spread == pytest.approx(expected, rel=0.35, abs=1e-9)
    assert not torch.equal(model(INPUTS), plain)
    assert torch.equal(model.eval()(INPUTS), plain)
    assert torch.equal(recipe.export().train()(INPUTS), plain)


def test_errors():
    for p in (1.0, -0.1, tikhon.linear(0.5, 1.0)):
        with pytest.raises(tikhon.TikhonError, match="p must be"):
            tikhon.GaussianDropout(p=p)
    with pytest.raises(tikhon.TikhonError, match="gaussian_dropout: the model has no module '7'"):
        tikhon.Recipe(tikhon.GaussianDropout(at="7")).prepare(nn.Sequential(nn.Linear(4, 3)))
