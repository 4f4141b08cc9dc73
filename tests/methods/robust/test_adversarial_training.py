"""Adversarial training: the worst case of a linear model in closed form, a step by hand, what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

X = torch.rand(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))
BINARY = Y % 2


def attached(model, *methods, **settings):
    recipe = tikhon.Recipe(*methods, **settings)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    return recipe, optimizer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def seen_by(model):
    """What goes into the model, pass by pass."""
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


@pytest.mark.parametrize(("norm", "dual"), [("inf", 1), ("2", 2)])
def test_two_classes_of_a_linear_model_are_the_closed_form(norm, dual):
    """The margin w.x falls by radius times the dual norm of w, whatever the sample."""
    model = nn.Linear(4, 2).double()
    recipe, _ = attached(model, tikhon.AdversarialTraining(0.1, norm=norm, random_start=False))
    difference = model.weight[1] - model.weight[0]
    margin = (model(X)[:, 1] - model(X)[:, 0]) * (2.0 * BINARY - 1.0)
    expected = F.softplus(-(margin - 0.1 * difference.norm(p=dual))).mean()
    assert recipe.loss(X, BINARY).item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_fast_gradient_sign_method_by_hand():
    model = network()
    inputs = X.clone().requires_grad_()
    F.cross_entropy(model(inputs), Y).backward()
    expected = (X + 0.2 * inputs.grad.sign()).clamp(0.0, 1.0)
    model.zero_grad()
    method = tikhon.AdversarialTraining(0.2, step_size=1.0, steps=1, valid=(0.0, 1.0), random_start=False)
    recipe, _ = attached(model, method)
    seen = seen_by(model)
    loss = recipe.loss(X, Y)
    torch.testing.assert_close(seen[-1], expected)
    assert loss.item() == pytest.approx(F.cross_entropy(model(expected), Y).item(), rel=1e-12)
    assert all(one.grad is None for one in model.parameters())


def test_steps_random_starts_and_bounds():
    model = network()
    recipe, _ = attached(model, tikhon.AdversarialTraining(0.1, steps=4, valid=(0.0, 1.0)))
    seen = seen_by(model)
    recipe.loss(X, Y)
    assert len(seen) == 5
    assert not torch.equal(seen[0], X)  # the random start
    assert all(one.min() >= 0.0 and one.max() <= 1.0 and (one - X).abs().max() <= 0.1 + 1e-12 for one in seen)
    losses = [F.cross_entropy(model(one), Y).item() for one in (X, seen[0], seen[4])]
    assert losses[2] > max(losses[:2])


def test_each_step_draws_starts_of_its_own():
    model = network()
    recipe, optimizer = attached(model, tikhon.AdversarialTraining(0.1, steps=1))
    seen = seen_by(model)
    for _ in range(2):
        recipe.loss(X, Y).backward()
        optimizer.step()
    assert not torch.equal(seen[0], seen[2])


def test_running_statistics_are_those_of_the_attacked_batch_alone_and_dropout_draws_as_ever():
    def norm():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).double()

    model, twin = norm(), norm()
    recipe, _ = attached(model, tikhon.AdversarialTraining(0.1, steps=3))
    seen = seen_by(model)
    torch.manual_seed(1)
    loss = recipe.loss(X, Y).item()
    torch.manual_seed(1)
    assert loss == F.cross_entropy(twin(seen[-1]), Y).item()
    assert torch.equal(model[1].running_mean, twin[1].running_mean)
    assert int(model[1].num_batches_tracked) == 1


def test_mixing_comes_after_the_attack():
    recipe = tikhon.Recipe(tikhon.MixUp(), tikhon.AdversarialTraining())
    assert "adversarial_training (augment) -> mixup (mix)" in recipe.explain()


def test_values_can_be_attacked_too():
    model = nn.Linear(4, 1).double()
    target = model(X).detach() + 1.0
    recipe, _ = attached(model, tikhon.AdversarialTraining(0.1, steps=9), base=F.mse_loss)
    expected = (1.0 + 0.1 * model.weight.abs().sum()).square()
    assert recipe.loss(X, target).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"radius": -1.0}, "radius"), ({"steps": 0}, "steps"), ({"norm": "1"}, "norm"), ({"valid": (1.0, 0.0)}, "valid")],
)
def test_wrong_arguments_are_refused(arguments, says):
    with pytest.raises(tikhon.TikhonError, match=says):
        tikhon.AdversarialTraining(**arguments)


def test_inputs_that_cannot_move_are_refused():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    recipe, _ = attached(model, tikhon.AdversarialTraining())
    with pytest.raises(tikhon.TikhonError, match="int64 tensor"):
        recipe.loss(torch.zeros(16, 2, dtype=torch.int64), Y)
