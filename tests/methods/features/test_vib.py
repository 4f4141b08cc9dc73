"""The variational bottleneck: its rate by torch's distributions, noise in training alone, and what is left after."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

import tikhon
from tikhon.methods.features.vib import deviation, rate


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def attached(method, model=None):
    model = network() if model is None else model
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    return recipe, model, optimizer


X, Y = torch.randn(12, 6, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


def test_the_rate_is_the_divergence_from_the_standard_normal():
    mean, deviations = torch.randn(5, 4, dtype=torch.float64) * 3.0, torch.rand(5, 4, dtype=torch.float64) + 0.01
    expected = kl_divergence(Normal(mean, deviations), Normal(torch.zeros(4).double(), 1.0)).sum(1)
    torch.testing.assert_close(rate(mean, deviations), expected)


@pytest.mark.parametrize("raw", [-200.0, -80.0, -20.0, 0.0, 60.0])
def test_no_deviation_makes_the_rate_infinite(raw):
    raw = torch.tensor([[raw]], requires_grad=True)
    value = rate(torch.ones(1, 1), deviation(raw))
    value.sum().backward()
    assert value.isfinite().all()
    assert raw.grad.isfinite().all()


def test_the_loss_is_that_of_the_noisy_features_and_their_rate():
    recipe, model, _ = attached(tikhon.VIB(0.3))
    torch.manual_seed(5)
    loss = recipe.loss(X, Y)
    torch.manual_seed(5)
    features = F.relu(F.linear(X, model[0].weight, model[0].bias))
    deviations = F.softplus(F.linear(features, model.vib_weight, model.vib_bias) - 5.0)
    code = features + deviations * torch.randn_like(deviations)
    task = F.cross_entropy(F.linear(code, model[2].weight, model[2].bias), Y)
    torch.testing.assert_close(loss, task + 0.3 * rate(features, deviations).mean())


def test_a_strength_squeezes_the_features():
    def rate_after(strength):
        recipe, _, optimizer = attached(tikhon.VIB(strength))
        for _ in range(200):
            optimizer.zero_grad()
            recipe.loss(X, Y).backward()
            optimizer.step()
        return recipe.log()["loss/vib/rate"]

    assert rate_after(1.0) < 0.1 * rate_after(1e-6)


def test_eval_mode_and_export_are_the_plain_model():
    recipe, model, optimizer = attached(tikhon.VIB())
    recipe.loss(X, Y).backward()
    optimizer.step()
    assert not torch.equal(model(X), model(X))
    expected = model.eval()(X)
    assert torch.equal(expected, model[2](model[1](model[0](X))))
    plain = recipe.export()
    assert plain.state_dict().keys() == network().state_dict().keys()
    assert torch.equal(plain.eval()(X), expected)
    assert torch.equal(plain.train()(X), expected)


def test_the_first_noise_does_not_depend_on_the_global_generator():
    one = attached(tikhon.VIB())[1]
    other = network()
    torch.manual_seed(78)
    attached(tikhon.VIB(), other)
    assert torch.equal(one.vib_weight, other.vib_weight)


@pytest.mark.parametrize(
    ("arguments", "model", "message"),
    [
        ({"strength": -1.0}, None, "strength"),
        ({"at": "1"}, None, "acts before an nn.Linear"),
        ({"at": "7"}, None, "7"),
        ({}, nn.Sequential(nn.Conv1d(3, 2, 1)), "vib"),
    ],
)
def test_wrong_input_is_refused(arguments, model, message):
    with pytest.raises(tikhon.TikhonError, match=message):
        attached(tikhon.VIB(**arguments), model)
