"""DANN: gradients against two networks by hand, the paper's schedule, the discriminator's life, turned moons."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import make_moons
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.domains.dann import reversed_gradient


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def ready(method, steps=10, lr=0.1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    recipe = tikhon.Recipe(method)
    recipe.prepare(model, samples=20)
    recipe.attach(optimizer := torch.optim.SGD(model.parameters(), lr=lr), steps=steps)
    return recipe, model, optimizer


def test_values_stay_to_the_bit_and_gradients_turn_round() -> None:
    x = drawn(5, 3).requires_grad_()
    found = reversed_gradient(x, 0.3)
    assert torch.equal(found, x)
    (gradient,) = torch.autograd.grad(found, x, torch.ones_like(x))
    torch.testing.assert_close(gradient, -0.3 * torch.ones_like(x))


@pytest.mark.parametrize("pooled", [False, True])
def test_the_discriminator_descends_and_the_features_ascend(pooled) -> None:
    x, y, domains = drawn(10, 4), torch.arange(10) % 3, torch.arange(20) % 3
    rows = torch.ones(3, 4, dtype=torch.float64)  # all alike: it does not matter which are drawn
    given = {"unlabelled": rows} if pooled else {"domains": domains}
    recipe, model, _ = ready(tikhon.DANN(**given, strength=0.7, width=5))
    recipe.loss(x, y, index=torch.arange(10)).backward()
    found = {name: one.grad.clone() for name, one in model.named_parameters()}
    weights = [getattr(model, f"dann_discriminator_{name}") for name in ("weight1", "bias1", "weight2", "bias2")]
    features = model[:2](torch.cat([x, rows[:1].expand(10, 4)]) if pooled else x)
    aim = torch.arange(20) // 10 if pooled else domains[:10]
    assert weights[2].shape == (2 if pooled else 3, 5)
    scores = F.linear(F.relu(F.linear(features, *weights[:2])), *weights[2:])
    adversary, task = F.cross_entropy(scores, aim), F.cross_entropy(model(x), y)
    for one, expected in zip(weights, torch.autograd.grad(adversary, weights, retain_graph=True), strict=True):
        name = next(name for name, other in model.named_parameters() if other is one)
        torch.testing.assert_close(found[name], expected)
    whole = torch.autograd.grad(task - 0.7 * adversary, [model[0].weight, model[0].bias])
    torch.testing.assert_close(found["0.weight"], whole[0])
    torch.testing.assert_close(found["0.bias"], whole[1])


def test_the_default_follows_the_papers_schedule() -> None:
    recipe, _, optimizer = ready(tikhon.DANN(torch.arange(20) % 2), steps=4)
    for step in range(4):
        expected = 2.0 / (1.0 + math.exp(-10.0 * step / 4)) - 1.0
        assert recipe.log()["dann/strength"] == pytest.approx(expected)
        optimizer.zero_grad()
        recipe.loss(drawn(10, 4), torch.arange(10) % 3, index=torch.arange(10)).backward()
        optimizer.step()
    with pytest.raises(TikhonError, match="how long training is"):
        ready(tikhon.DANN(torch.arange(20) % 2), steps=None)


def test_the_discriminator_trains_and_is_gone_after_export() -> None:
    recipe, model, optimizer = ready(tikhon.DANN(torch.arange(20) % 2, strength=0.1))
    before = model.dann_discriminator_weight1.detach().clone()
    recipe.loss(drawn(10, 4), torch.arange(10) % 3, index=torch.arange(10)).backward()
    optimizer.step()
    assert not torch.equal(model.dann_discriminator_weight1, before)
    assert not any("dann" in name for name in recipe.export().state_dict())


def test_it_leaves_the_callers_generator_alone() -> None:
    recipe = tikhon.Recipe(tikhon.DANN(torch.arange(4) % 2))
    model = nn.Sequential(nn.Linear(5, 8))
    state = torch.get_rng_state()
    recipe.prepare(model, samples=4)
    assert torch.equal(torch.get_rng_state(), state)


def test_turned_moons_are_told_apart_without_their_labels() -> None:
    points, labels = make_moons(300, noise=0.05, random_state=0)
    x, y = torch.tensor(points, dtype=torch.float32) - torch.tensor([0.5, 0.25]), torch.tensor(labels)
    angle = math.radians(35.0)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    other = x @ turn.T
    found = []
    for methods in ((), (tikhon.DANN(unlabelled=other),)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 32), nn.Sigmoid(), nn.Linear(32, 2))
        recipe = tikhon.Recipe(*methods)
        recipe.prepare(model)
        recipe.attach(optimizer := torch.optim.Adam(model.parameters(), lr=0.01), steps=500)
        for _ in range(500):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        found.append(float((model(other).argmax(1) == y).float().mean()))
    assert found[1] > found[0] + 0.1, found


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="one of them"):
        tikhon.DANN()
    with pytest.raises(TikhonError, match="width"):
        tikhon.DANN(torch.arange(4) % 2, width=0)
    with pytest.raises(TikhonError, match="linear"):
        ready(tikhon.DANN(torch.arange(20) % 2, at="1"))


def test_two_of_them_compare_two_layers() -> None:
    two = tikhon.DANN(torch.arange(20) % 2, at="0"), tikhon.DANN(torch.arange(20) % 2).named("second")
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    recipe = tikhon.Recipe(*two)
    recipe.prepare(model, samples=20)
    assert model.dann_discriminator_weight1.shape == (100, 4)
    assert model.second_discriminator_weight1.shape == (100, 8)
