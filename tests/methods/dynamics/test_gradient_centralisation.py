"""Gradient centralisation: unit by unit by hand, and what it keeps: every unit's mean weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tikhon
from tikhon.methods.dynamics.gradient_centralisation import centralised

X = torch.randn(8, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1.0
Y = torch.arange(8) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()


def trained(*methods, steps=5):
    model = network()
    recipe = tikhon.Recipe(*methods)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        optimizer.step()
    return model


def unit_means(model):
    return [one.detach().flatten(1).mean(1) for one in model.parameters() if one.ndim > 1]


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (3, 5), (2, 3, 4)])
def test_every_units_gradient_is_centred_by_itself(shape):
    gradient = torch.randn(shape, dtype=torch.float64)
    (found,) = centralised([gradient])
    for unit, raw in zip(found, gradient, strict=True):
        torch.testing.assert_close(unit, raw - raw.mean())


def test_the_mean_weight_of_every_unit_stays_where_it_began():
    begin, end, plain = (
        unit_means(model) for model in (network(), trained(tikhon.GradientCentralisation()), trained())
    )
    for one, other, without in zip(begin, end, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-12)
        assert (one - without).abs().max() > 1e-4


def test_biases_train_as_ever_and_weights_too():
    before, after = network(), trained(tikhon.GradientCentralisation(), steps=1)
    plain = trained(steps=1)
    for one, other, without in zip(before.parameters(), after.parameters(), plain.parameters(), strict=True):
        assert not torch.equal(one, other)
        assert torch.equal(other, without) == (one.ndim == 1)


def test_a_selection_with_biases_in_it_leaves_them():
    assert torch.equal(
        trained(tikhon.GradientCentralisation(where="all"))[0].bias, trained(tikhon.GradientCentralisation())[0].bias
    )


def test_no_gradient_at_all_is_no_error():
    model = network()
    recipe = tikhon.Recipe(tikhon.GradientCentralisation(where="0"))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    recipe.loss(X, Y).backward()
    model[0].weight.grad = model[0].bias.grad = None
    optimizer.step()
