"""Interval bound training: the worst case by search, terms and their schedule, initialisation, and what it reaches."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.measures.ibp_tightness import certified_accuracy
from tikhon.methods.robust.ibp import excess_width, ibp_initialise, relu_imbalance


def ready(model, steps=10, **arguments):
    recipe = tikhon.Recipe(tikhon.IBPTraining(**arguments))
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, steps=steps)
    return recipe, optimizer


def linear_problem():
    torch.manual_seed(0)
    return nn.Linear(3, 4).double(), torch.rand(5, 3).double(), torch.tensor([0, 1, 2, 3, 0])


@pytest.mark.parametrize("soft", [False, True])
def test_the_worst_case_bounds_every_loss_in_the_box_and_two_classes_reach_it(soft) -> None:
    for classes in (2, 4):
        torch.manual_seed(0)
        model, x = nn.Linear(3, classes).double(), torch.rand(5, 3).double()
        y = torch.arange(5) % classes
        y = F.one_hot(y, classes).double() * 0.8 + 0.2 / classes if soft else y
        recipe, _ = ready(model, eps=0.2, valid=(0.0, 1.0))
        found = recipe.loss(x, y)
        corners = torch.tensor(list(itertools.product([-0.2, 0.2], repeat=3)), dtype=torch.float64)
        attacked = [F.cross_entropy(model((x + one).clamp(0.0, 1.0)), y, reduction="none") for one in corners]
        worst = torch.stack(attacked).amax(0).mean()
        assert found > F.cross_entropy(model(x), y) + 0.01
        assert found >= worst - 1e-12
        if classes == 2 and not soft:
            torch.testing.assert_close(found, worst)


def test_bounds_are_of_what_the_recipe_reads_in_the_output() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4).double(), torch.rand(5, 3).double(), torch.tensor([0, 1, 0, 1, 0])
    losses = []
    for part, whole in ((slice(1, 3), model), (slice(0, 2), nn.Linear(3, 2).double())):
        if whole is not model:
            whole.weight.data, whole.bias.data = model.weight.data[1:3], model.bias.data[1:3]
        recipe = tikhon.Recipe(tikhon.IBPTraining(0.1), output=lambda scores, part=part: scores[:, part])
        recipe.prepare(whole)
        recipe.attach(torch.optim.SGD(whole.parameters(), lr=0.1))
        losses.append(recipe.loss(x, y).item())
        assert whole.training
    assert losses[0] == pytest.approx(losses[1])


def test_strength_moves_from_the_task_to_the_worst_case() -> None:
    losses = []
    for strength in (0.0, 0.3, 1.0):
        model, x, y = linear_problem()
        losses.append(ready(model, eps=0.1, strength=strength)[0].loss(x, y).item())
    assert losses[0] == pytest.approx(F.cross_entropy(model(x), y).item())
    assert losses[1] == pytest.approx(0.7 * losses[0] + 0.3 * losses[2])


def test_regularisers_leave_as_eps_comes_to_its_end() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    recipe, optimizer = ready(model, eps=tikhon.linear(0.0, 0.1, over=(0, 4), by="step"), regularisation=2.0)
    x, y = linear_problem()[1:]
    for number in range(5):
        optimizer.zero_grad()
        with torch.no_grad():
            plain = F.cross_entropy(model(x), y)
        loss = recipe.loss(x, y)
        parts = {name: value for name, value in recipe.log().items() if name.startswith("loss/")}
        if number == 0:
            assert parts["loss/ibp/worst_case"] == pytest.approx(0.0, abs=1e-12)
            share = parts["loss/ibp/width"] + parts["loss/ibp/imbalance"]
            assert loss.item() == pytest.approx(float(plain) + 2.0 * share)
        assert ("loss/ibp/width" in parts) == (number < 4)
        loss.backward()
        optimizer.step()


def test_regularisers_by_hand() -> None:
    widths = [torch.tensor(one) for one in (1.0, 4.0, 10.0)]
    assert excess_width(torch.tensor(1.0), widths, 0.5).item() == pytest.approx((0.25 + 0.4) / 0.5 / 3)
    centre = torch.tensor([4.0, 2.0, -1.0, -1.0, 0.1]).double()  # mean 0.82; the last is unstable
    spreads = ((4 - 0.82) ** 2 + (2 - 0.82) ** 2, 2 * (1 + 0.82) ** 2)
    expected = ((0.5 - 2 / 6) + max(0.0, 0.5 - min(spreads) / max(spreads))) / 0.5
    assert relu_imbalance(centre - 0.5, centre + 0.5, 0.5).item() == pytest.approx(expected)
    mirrored = relu_imbalance(-centre - 0.5, -centre + 0.5, 0.5)
    assert mirrored.item() == pytest.approx(expected)
    assert relu_imbalance(centre[:2] - 0.5, centre[:2] + 0.5) == 0.0  # none is off
    assert relu_imbalance(-centre[:2] - 0.5, -centre[:2] + 0.5) == 2.0  # none is on


def test_initialisation_keeps_the_width_of_bounds() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(5) for layer in (nn.Linear(256, 256), nn.ReLU())], nn.Linear(256, 10))
    last, bias = model[-1].weight.clone(), model[0].bias.clone()
    x = torch.rand(20, 256)

    def widths():
        box = tikhon.math.bounds.Interval(x, torch.full_like(x, 0.05))
        model(box)
        return [one.radius.mean().item() for one in box.before_relu]

    before = widths()
    assert ibp_initialise(model, torch.Generator().manual_seed(0)) is model
    assert torch.equal(model[-1].weight, last)
    assert torch.equal(model[0].bias, bias)
    assert model[2].weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / 256, rel=0.02)
    assert before[-1] > 50 * before[0]
    assert all(0.3 < one / 0.05 < 3.0 for one in widths())
    convolution = nn.Sequential(nn.Conv2d(16, 64, 3), nn.Linear(2, 2))
    ibp_initialise(convolution)
    assert convolution[0].weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / 144, rel=0.05)


def test_it_certifies_what_plain_training_does_not() -> None:
    certified = []
    ramp = tikhon.linear(0.0, 0.15, over=(0.0, 0.5))
    for arguments in ({"eps": ramp}, {"eps": ramp, "strength": 0.0, "regularisation": 0.0}):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
        x = torch.rand(256, 8)
        y = (x[:, 0] > 0.5).long()
        x[:, 0] = torch.where(y == 1, 0.8, 0.2)
        recipe, optimizer = ready(model, 200, **arguments)
        for _ in range(200):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        certified.append(certified_accuracy(recipe.export(), x, y, 0.15))
    assert certified[0] > 0.95
    assert certified[1] < 0.8


def test_what_does_not_fit_is_refused() -> None:
    model, x, y = linear_problem()
    with pytest.raises(TikhonError, match="least and the greatest"):
        tikhon.IBPTraining(0.1, valid=(1.0, 0.0))
    recipe, _ = ready(model, eps=tikhon.linear(0.0, 0.1))
    with pytest.raises(TikhonError, match="met none: set regularisation=0"):
        recipe.loss(x, y)
    recipe, _ = ready(nn.Sequential(nn.Linear(3, 4), nn.GELU()).double(), eps=0.1)
    with pytest.raises(TikhonError, match="gelu"):
        recipe.loss(x, y)
