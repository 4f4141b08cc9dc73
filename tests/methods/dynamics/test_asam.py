"""ASAM against another implementation and steps by hand, and what it is for: layers can be rescaled."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.math.ascent import scaled_ascent_offsets

X = torch.arange(8.0, dtype=torch.float64).cos().reshape(4, 2)
Y = torch.tensor([0, 1, 1, 0])


def network(bias=False):
    model = nn.Sequential(nn.Linear(2, 3, bias=bias), nn.Tanh(), nn.Linear(3, 2, bias=bias)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(6.0).sin().reshape(3, 2))
        model[2].weight.copy_(torch.arange(6.0).cos().reshape(2, 3))
    return model


def attached(model, method):
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe.attach(optimizer)
    return recipe, optimizer


def train(recipe, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        optimizer.step()


def test_weights_are_those_of_another_library():
    """pytorch-optimizer 4.1.0: SAM(SGD, rho=0.5, adaptive=True, lr=0.1, momentum=0.9), three steps; it has no eta."""
    model = network()
    train(*attached(model, tikhon.ASAM(radius=0.5, eta=0.0)), 3)
    first = [0.133744556910, 0.845402080005, 0.969971207027, 0.146811382409, -0.792211095647, -0.951995355557]
    second = [1.008765333731, 0.588914032444, -0.462768511910, -0.998757833083, -0.702255304321, 0.330283867259]
    torch.testing.assert_close(model[0].weight.detach().flatten(), torch.tensor(first).double(), rtol=1e-7, atol=0.0)
    torch.testing.assert_close(model[2].weight.detach().flatten(), torch.tensor(second).double(), rtol=1e-7, atol=0.0)


def test_a_step_with_biases_and_eta_by_hand():
    model, twin = network(bias=True), network(bias=True)
    twin.load_state_dict(model.state_dict())
    recipe, _ = attached(model, tikhon.ASAM(radius=0.4, eta=0.05))
    F.cross_entropy(twin(X), Y).backward()
    scales = [one.detach().abs() + 0.05 if one.ndim > 1 else torch.ones_like(one) for one in twin.parameters()]
    norm = sum((t * one.grad).square().sum() for t, one in zip(scales, twin.parameters(), strict=True)).sqrt()
    with torch.no_grad():
        for t, one in zip(scales, twin.parameters(), strict=True):
            one += 0.4 * t.square() * one.grad / norm
    recipe.loss(X, Y)  # and no backward: the weights are still where the second gradient is taken
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_weights_return_exactly_when_backward_ends():
    model = network(bias=True)
    before = copy.deepcopy(model.state_dict())
    recipe, _ = attached(model, tikhon.ASAM(radius=0.5))
    loss = recipe.loss(X, Y)
    assert not torch.equal(model[0].weight, before["0.weight"])
    loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def sharp(method, scale):
    """The loss at the worst point of a ReLU network whose layers are rescaled against each other."""
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)).double()
    model.load_state_dict(network().state_dict())
    with torch.no_grad():
        model[0].weight *= scale
        model[2].weight /= scale
    recipe, _ = attached(model, method)
    return float(recipe.loss(X, Y).detach())


def test_the_worst_loss_does_not_depend_on_how_layers_are_scaled():
    adaptive = [sharp(tikhon.ASAM(radius=0.2, eta=0.0), scale) for scale in (1.0, 10.0)]
    plain = [sharp(tikhon.SAM(radius=0.2), scale) for scale in (1.0, 10.0)]
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-12)
    assert abs(plain[0] - plain[1]) > 0.01


def test_zero_and_tiny_gradients_are_safe():
    scales = [torch.tensor([1.0, 2.0])]
    assert not scaled_ascent_offsets(scales, [torch.zeros(2)], 0.5)[0].any()
    (found,) = scaled_ascent_offsets(scales, [torch.tensor([3e-30, 2e-30])], 1.0)
    torch.testing.assert_close(found, torch.tensor([0.6, 1.6]))


@pytest.mark.parametrize("arguments", [{"radius": -0.1}, {"eta": -0.1}])
def test_negative_scalars_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.ASAM(**arguments)
