"""Saving and loading: bit-exact, plain, all or nothing."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import tikhon
from tikhon import ELR, EMA, L2, MixUp, Recipe, TikhonError
from tikhon.core.errors import Diverged

from .common import Remembering, mlp, ready, rows, same, sgd, train, weights


def recipe_of(seed: int = 0, *, samples: int = 8, steps: int = 8) -> tuple[Recipe, nn.Module, torch.optim.Optimizer]:
    recipe = Recipe(ELR(), EMA(0.5), MixUp(tikhon.linear(0.1, 1.0)), L2(0.1), seed=seed)
    return recipe, *ready(recipe, samples=samples, steps=steps)


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_resume_is_exact_and_state_loads_with_weights_only() -> None:
    recipe, model, optimizer = recipe_of()
    train(recipe, optimizer, 3)
    recipe.end_epoch()
    saved = through_a_file((model.state_dict(), recipe.state_dict()))
    train(recipe, optimizer, 3)
    again, other, other_optimizer = recipe_of()
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    assert (again.step, again.epoch) == (3, 1)
    train(again, other_optimizer, 3)
    assert same(weights(model), weights(other))
    assert same(weights(recipe.export()), weights(again.export()))


def test_loading_copies() -> None:
    recipe, _, optimizer = recipe_of()
    train(recipe, optimizer, 2)
    state = copy.deepcopy(recipe.state_dict())
    kept = copy.deepcopy(state)
    again, _, other_optimizer = recipe_of()
    again.load_state_dict(state)
    train(again, other_optimizer, 2)
    torch.testing.assert_close(state, kept, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"model": 1}, "not the state of a recipe"),
        (lambda s: "text", "not the state of a recipe"),
        (lambda s: s.update(format=99), "format 99"),
        (lambda s: s.update(seed=5), "seed=5"),
        (lambda s: s["methods"].pop("elr") and None, "this one has elr, ema, l2, mixup"),
        (lambda s: s["methods"].update(other={}), "recipe with elr, ema, l2, mixup, other"),
        (lambda s: s["methods"]["elr"]["memory._extra_state"].update(samples=9), "9 samples, this one 8"),
        (lambda s: s["methods"]["ema"].clear(), "does not fit this recipe's ema"),
        (lambda s: s["methods"].update(elr=None), "does not fit this recipe's elr"),
        (lambda s: s.update(methods=None), "damaged"),
        (lambda s: s.update(clock=None), "damaged"),
        (lambda s: s["clock"].pop("number") and None, "damaged"),
        (lambda s: s["clock"].update(number="3"), "damaged"),
        (lambda s: s["clock"].update(number=-1), "damaged"),
    ],
)  # fmt: skip
def test_foreign_and_damaged_states_are_refused_and_nothing_changes(change: Any, message: str) -> None:
    recipe, _model, optimizer = recipe_of()
    train(recipe, optimizer, 2)
    x, y = rows()
    recipe.loss(x, y, index=torch.arange(8)).backward()  # half-way: rows are staged
    before = copy.deepcopy(recipe.state_dict())
    assert before["clock"]["micro"] == 1
    bad = copy.deepcopy(before)
    bad["clock"]["number"] = 77
    replaced = change(bad)
    with pytest.raises(TikhonError, match=message):
        recipe.load_state_dict(bad if replaced is None else replaced)
    torch.testing.assert_close(recipe.state_dict(), before, rtol=0, atol=0)
    optimizer.step()
    assert recipe.step == 3
    assert recipe.methods["elr"].memory.staged == 0  # type: ignore[union-attr]


def test_a_state_is_loaded_after_prepare() -> None:
    recipe, _, _ = recipe_of()
    with pytest.raises(TikhonError, match="first prepare"):
        Recipe(ELR(), EMA(0.5), MixUp(), L2(0.1)).load_state_dict(recipe.state_dict())


def test_a_state_goes_to_the_device_of_the_model() -> None:
    recipe = Recipe(EMA(0.5), Remembering())
    _, optimizer = ready(recipe)
    train(recipe, optimizer)
    other = Recipe(EMA(0.5), Remembering())
    model = other.prepare(mlp().to("meta"), samples=8)
    other.attach(sgd(model))
    other.load_state_dict(recipe.state_dict())
    ema, memory = other.methods["ema"], other.methods["remembering"]
    assert {tensor.device.type for tensor in ema.averages().values()} == {"meta"}
    assert memory.memory.table.device.type == "meta"  # type: ignore[union-attr]


def test_the_state_of_an_empty_recipe() -> None:
    recipe = Recipe()
    _, optimizer = ready(recipe)
    train(recipe, optimizer)
    again = Recipe()
    ready(again)
    again.load_state_dict(through_a_file(recipe.state_dict()))
    assert again.step == 1


def test_a_loss_that_was_lost_is_forgotten_with_the_state_that_had_it() -> None:
    recipe, _, optimizer = recipe_of()
    train(recipe, optimizer)
    before = copy.deepcopy(recipe.state_dict())
    recipe._window.note(torch.tensor(float("nan")))  # as on an accelerator, where losses are looked at later
    recipe.load_state_dict(before)
    recipe.end_epoch()
    recipe._window.note(torch.tensor(float("nan")))
    with pytest.raises(Diverged, match="at some step of epoch 1"):
        recipe.end_epoch()
