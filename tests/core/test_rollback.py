"""Going back: everything is as it was, to the bit, as often as wanted; and rates that move together."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tikhon
from tikhon import TikhonError
from tikhon.core.rates import Rates
from tikhon.core.rollback import Rollback

from .common import mlp, rows


def states(*objects):
    return copy.deepcopy([one.state_dict() for one in objects])


def same(one, other):
    """To the bit."""
    try:
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    except AssertionError:
        return False
    return True


def training(optimizer=torch.optim.SGD, **settings):
    recipe = tikhon.Recipe(tikhon.ELR(), tikhon.EMA(0.5), tikhon.L2(0.1))
    model = recipe.prepare(nn.Sequential(mlp(), nn.BatchNorm1d(3).double()), samples=8)
    made = optimizer(model.parameters(), lr=0.1, **settings)
    recipe.attach(made, steps=100)
    return model, recipe, made


def train(recipe, optimizer, steps):
    x, y = rows()
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(x, y, index=torch.arange(8)).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("optimizer", "settings"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {}), (torch.optim.SGD, {})]
)
@pytest.mark.parametrize("before", [0, 3])
def test_everything_goes_back_as_often_as_wanted(optimizer, settings, before) -> None:
    model, recipe, made = training(optimizer, **settings)
    train(recipe, made, before)
    rollback = Rollback(model, made, recipe)
    rollback.take()
    start = states(model, made, recipe)
    ends = []
    for _ in range(3):
        train(recipe, made, 4)
        ends.append(states(model, made, recipe))
        assert not same(ends[-1][0], start[0])
        rollback.put_back()
        assert same(states(model, made, recipe), start)
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_what_cannot_be_put_back_is_refused() -> None:
    model, recipe, optimizer = training()
    with pytest.raises(TikhonError, match="int has no state_dict"):
        Rollback(model, 3)
    with pytest.raises(TikhonError, match="passed twice"):
        Rollback(model, optimizer, model)
    with pytest.raises(TikhonError, match="move 6 parameters that belong to no model"):
        Rollback(optimizer, recipe)


def test_rates_keep_their_ratio() -> None:
    model = nn.Linear(2, 2)
    one = torch.optim.SGD([{"params": [model.weight], "lr": 0.2}, {"params": [model.bias], "lr": 0.05}])
    other = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1), foreach=False, capturable=True)
    held = other.param_groups[0]["lr"]
    Rates([one, other]).set(4.0)
    assert [group["lr"] for group in one.param_groups] == [4.0, 1.0]
    assert other.param_groups[0]["lr"] is held
    torch.testing.assert_close(held, torch.tensor(2.0))


@pytest.mark.parametrize("rate", [0.0, float("inf")])
def test_rates_without_a_ratio_are_refused(rate) -> None:
    with pytest.raises(TikhonError, match="positive, finite"):
        Rates([torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=rate)])
    with pytest.raises(TikhonError, match="positive, finite"):
        Rates([])
