"""Input gradient penalty: the closed form of logistic regression, weights, mixing, and its own gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

X = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (6,), generator=torch.Generator().manual_seed(1))


def attached(model, *methods, **settings):
    recipe = tikhon.Recipe(*methods, **settings)
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    return recipe


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def test_for_a_linear_softmax_it_is_the_closed_form():
    """d CE / d x = W^T (p - y)."""
    model = nn.Linear(4, 3).double()
    recipe = attached(model, tikhon.InputGradientPenalty(0.7))
    residual = model(X).softmax(1) - F.one_hot(Y, 3)
    expected = F.cross_entropy(model(X), Y) + 0.7 * (residual @ model.weight).square().sum(1).mean()
    found = recipe.loss(X, Y)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    found.backward()
    (gradient,) = torch.autograd.grad(expected, model.weight)
    torch.testing.assert_close(model.weight.grad, gradient)


def test_of_a_network_it_is_that_of_single_samples():
    model = network()
    recipe = attached(model, tikhon.InputGradientPenalty(1.0))
    norms = []
    for x, y in zip(X, Y, strict=True):
        alone = x[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(alone), y[None]), alone)
        norms.append(gradient.square().sum())
    expected = F.cross_entropy(model(X), Y) + torch.stack(norms).mean()
    assert recipe.loss(X, Y).item() == pytest.approx(expected.item(), rel=1e-12)


def test_sample_weights_count_once():
    model = network()
    recipe = attached(model, tikhon.InputGradientPenalty(1.0))
    weight = torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    twice = recipe.loss(X, Y, weight=weight, total=1.0).item()
    assert twice == pytest.approx(2.0 * recipe.loss(X[:1], Y[:1], total=1.0).item(), rel=1e-12)


def test_with_mixing_it_is_that_of_the_mixed_loss():
    model = network()
    recipe = attached(model, tikhon.InputGradientPenalty(1.0), tikhon.MixUp(alpha=1.0))
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    loss = recipe.loss(X, Y).item()
    assert not torch.equal(seen[0], X)
    assert recipe.log()["loss/input_gradient"] > 0
    assert loss > recipe.log()["loss/task"]


def test_of_values_it_is_that_of_the_squared_error():
    model = nn.Linear(4, 1).double()
    target = torch.randn(6, 1, dtype=torch.float64)
    recipe = attached(model, tikhon.InputGradientPenalty(0.5), base=F.mse_loss)
    error = model(X) - target
    expected = error.square().mean() + 0.5 * (2.0 * error * model.weight).square().sum(1).mean()
    assert recipe.loss(X, target).item() == pytest.approx(expected.item(), rel=1e-12)


def test_inputs_that_cannot_move_are_refused():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    recipe = attached(model, tikhon.InputGradientPenalty())
    with pytest.raises(tikhon.TikhonError, match="int64 tensor"):
        recipe.loss(torch.zeros(6, 2, dtype=torch.int64), Y)


def test_a_negative_strength_is_refused():
    with pytest.raises(tikhon.TikhonError, match="strength"):
        tikhon.InputGradientPenalty(-1.0)


@pytest.mark.parametrize("name", ["adversarial_training", "zz"])
def test_attacked_inputs_are_differentiated_whatever_the_attack_is_called(name):
    model = network()
    attack = tikhon.AdversarialTraining(0.1, steps=1, random_start=False).named(name)
    recipe = attached(model, attack, tikhon.InputGradientPenalty(1.0))
    seen = []
    handle = model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    found = recipe.loss(X, Y).item()
    handle.remove()
    attacked = seen[-1].clone().requires_grad_()
    losses = F.cross_entropy(model(attacked), Y, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), attacked)
    assert not torch.equal(attacked, X)
    assert found == pytest.approx((losses + gradient.square().sum(1)).mean().item(), rel=1e-12)
