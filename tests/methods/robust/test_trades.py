"""TRADES: the term by hand at the attacked inputs, what the attack gains, second passes, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon

X = torch.rand(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def attached(model, *methods):
    recipe = tikhon.Recipe(*methods)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    return recipe, optimizer


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        for one in model.parameters():
            one *= 3.0
    return model


def seen_by(model):
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


def objective(model, attacked, beta):
    clean = model(X)
    return F.cross_entropy(clean, Y) + beta * F.kl_div(
        F.log_softmax(model(attacked), 1), clean.softmax(1), reduction="batchmean"
    )


def test_loss_and_gradients_are_those_at_the_attacked_inputs():
    model = network()
    recipe, _ = attached(model, tikhon.TRADES(beta=2.0, radius=0.1, valid=(0.0, 1.0)))
    seen = seen_by(model)
    loss = recipe.loss(X, Y)
    loss.backward()
    attacked = seen[-1]
    assert torch.equal(seen[0], X)
    assert len(seen) == 1 + 10 + 1
    assert (attacked - X).abs().max() <= 0.1 + 1e-12
    assert 0.0 <= attacked.min() <= attacked.max() <= 1.0
    expected = objective(model, attacked, 2.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    found = [one.grad.clone() for one in model.parameters()]
    for one, other in zip(found, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_the_attack_beats_random_changes_of_its_size(norm):
    model = network()
    recipe, _ = attached(model, tikhon.TRADES(beta=1.0, radius=0.1, norm=norm))
    seen = seen_by(model)
    recipe.loss(X, Y)
    found = objective(model, seen[-1], 1.0).item()
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        change = torch.randn(X.shape, generator=generator, dtype=torch.float64)
        change = change.sign() if norm == "inf" else change / change.norm(dim=1, keepdim=True)
        assert found > objective(model, X + 0.1 * change, 1.0).item()


def test_a_second_pass_keeps_the_attacked_inputs():
    model = network()
    recipe, _ = attached(model, tikhon.TRADES(beta=2.0, radius=0.1), tikhon.AWP(gamma=0.05))
    seen = seen_by(model)
    recipe.loss(X, Y)
    assert len(seen) == 1 + 10 + 1 + 2
    assert torch.equal(seen[11], seen[13])
    assert torch.equal(seen[12], X)


def test_the_labels_have_no_part_in_the_attack():
    attacked = []
    for labels in (Y, (Y + 1) % 3):
        model = network()
        recipe, _ = attached(model, tikhon.TRADES())
        seen = seen_by(model)
        recipe.loss(X, labels)
        attacked.append(seen[-1])
    assert torch.equal(*attacked)


@pytest.mark.parametrize("arguments", [{"beta": -1.0}, {"radius": -1.0}, {"step_size": -1.0}, {"steps": 0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(tikhon.TikhonError, match=next(iter(arguments))):
        tikhon.TRADES(**arguments)
