"""Gradient noise: its variance by the formula, its fall, its independence, and its place behind clipping."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tikhon

X = torch.zeros(4, 200)
Y = torch.tensor([0, 1, 2, 3])


def noise(*methods, steps=1, seed=0):
    """Gradients of a layer whose inputs are zero, so that all that its weights get is noise; one row a step."""
    torch.manual_seed(0)
    model = nn.Linear(200, 100)
    recipe = tikhon.Recipe(*methods, seed=seed)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recipe.attach(optimizer)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(X, Y).backward()
        optimizer.step()
        found.append(model.weight.grad.flatten().clone())
    return torch.stack(found)


def test_the_variance_is_the_papers():
    found = noise(tikhon.GradientNoise(eta=0.3, gamma=0.55), steps=9)
    expected = 0.3 / (1.0 + torch.arange(9)) ** 0.55
    torch.testing.assert_close(found.var(1), expected, rtol=0.05, atol=0.0)  # of 20,000 draws, 1% is one deviation
    assert found.mean(1).abs().max() < 0.02


def test_draws_of_steps_and_seeds_are_independent_and_repeatable():
    found, other = noise(tikhon.GradientNoise(), steps=2), noise(tikhon.GradientNoise(), steps=2, seed=1)
    for one, two in ((found[0], found[1]), (found[0], other[0])):
        assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.03
    assert torch.equal(found, noise(tikhon.GradientNoise(), steps=2))


def test_noise_is_not_clipped():
    together = noise(tikhon.GradientNoise(eta=1.0), tikhon.ClipGradNorm(1e-3))
    assert together.std() == pytest.approx(1.0, rel=0.05)


def test_parameters_left_out_get_none():
    torch.manual_seed(0)
    model = nn.Linear(200, 100)
    recipe = tikhon.Recipe(tikhon.GradientNoise(where="bias"))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recipe.attach(optimizer)
    recipe.loss(X, Y).backward()
    expected = model.bias.grad.clone()
    optimizer.step()
    assert not model.weight.grad.any()
    assert not torch.allclose(model.bias.grad, expected)


@pytest.mark.parametrize("arguments", [{"eta": -1.0}, {"gamma": -0.1}])
def test_negative_scalars_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.GradientNoise(**arguments)
