"""The end: deployed weights and their restoration, and an export that is checked and leaves nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

import tikhon
from tikhon import EMA, L2, Method, MixUp, Recipe, TikhonError

from .common import CARD, mlp, ready, rows, same, sgd, train, weights
from .test_taps import Reads


def trained(*methods: Method) -> tuple[Recipe, nn.Module]:
    recipe = Recipe(*methods)
    model, optimizer = ready(recipe)
    train(recipe, optimizer, 3)
    return recipe, model


def test_deployed_shows_the_average_and_restores_by_copy() -> None:
    recipe, model = trained(EMA(0.5))
    before, leaves = weights(model), [id(p) for p in model.parameters()]
    averages = [value.clone() for value in recipe.methods["ema"].averages().values()]
    with recipe.deployed() as deployed:
        assert deployed is model
        assert same(weights(model), averages)
        assert not same(averages, before)
    assert same(weights(model), before)
    assert [id(p) for p in model.parameters()] == leaves


def test_deployed_restores_after_an_exception() -> None:
    recipe, model = trained(EMA(0.5))
    before = weights(model)
    with pytest.raises(ValueError, match="metric"), recipe.deployed():
        raise ValueError("metric")
    assert same(weights(model), before)


def test_deployed_changes_nothing_where_no_method_averages() -> None:
    recipe, model = trained(L2(0.1))
    before = weights(model)
    with recipe.deployed():
        assert same(weights(model), before)


def test_deployed_in_between_does_not_change_training() -> None:
    ends = []
    for look in (False, True):
        recipe = Recipe(EMA(0.5), MixUp())
        _model, optimizer = ready(recipe)
        for _ in range(3):
            train(recipe, optimizer)
            if look:
                with recipe.deployed(), torch.no_grad():
                    recipe.loss(*rows())
        ends.append(weights(recipe.export()))
    assert same(*ends)


def test_export_keeps_the_average_and_leaves_plain_torch() -> None:
    recipe, _model = trained(EMA(0.5), Reads(), MixUp())
    averages = {name: value.clone() for name, value in recipe.methods["ema"].averages().items()}
    exported = recipe.export()
    state = exported.state_dict()
    assert state.keys() == mlp().state_dict().keys()
    assert all(torch.equal(state[name], averages[name]) for name in state)
    for module in exported.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not parametrize.is_parametrized(module)
        assert type(module).__module__.startswith("torch.")
    fresh = mlp(seed=1)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(rows()[0]), exported(rows()[0]))
    copy.deepcopy(exported)


def test_export_leaves_the_training_mode_and_buffers_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).double()
    model[1].eval()
    recipe = Recipe()
    _, optimizer = ready(recipe, model)
    train(recipe, optimizer)
    before = [buffer.clone() for buffer in model.buffers()]
    recipe.export()
    assert [module.training for module in model] == [True, False, True]
    assert same(before, list(model.buffers()))


def test_after_export_the_optimizer_is_free_and_training_refused() -> None:
    recipe, model = trained(L2(0.1))
    recipe.export()
    with pytest.raises(TikhonError, match="attach"):
        recipe.loss(*rows())
    optimizer = sgd(model)
    optimizer.step()
    assert recipe.step == 3


def test_export_compares_outputs() -> None:
    class Spoils(Method):
        card = CARD
        slots = {"export": "prune"}

        def export(self, model: nn.Module) -> nn.Module:
            with torch.no_grad():
                model[2].bias.add_(1e-6)
            return model

    recipe, _ = trained(Spoils())
    with pytest.raises(TikhonError, match="outputs differ"):
        recipe.export()


class Leftover(nn.Module):
    __module__ = "tikhon.methods.made_up"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("what", ["module", "parametrization", "hook", "pre-hook"])
def test_export_refuses_a_model_with_leftovers(what: str) -> None:
    def hook(module: nn.Module, *values: object) -> None:
        return None

    hook.__module__ = "tikhon.methods.made_up"

    class Leaves(Method):
        card = CARD
        slots = {"prepare": "replace"}

        def prepare(self, model: nn.Module) -> None:
            if what == "module":
                model.append(Leftover())
            elif what == "parametrization":
                parametrize.register_parametrization(model[0], "weight", Leftover())
            elif what == "hook":
                model[0].register_forward_hook(hook)
            else:
                model[0].register_forward_pre_hook(hook)

    recipe, _ = trained(Leaves())
    with pytest.raises(TikhonError, match="left something in"):
        recipe.export()


def test_export_leaves_the_weight_norm_of_the_model_itself() -> None:
    model = weight_norm(nn.Linear(3, 2))
    recipe = Recipe()
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    x = torch.randn(4, 3)
    recipe.loss(x, torch.tensor([0, 1, 0, 1])).backward()
    expected = model(x)
    assert torch.equal(recipe.export()(x), expected)
    assert parametrize.is_parametrized(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when it imports its compiler
@pytest.mark.parametrize("way", ["wrapped", "in place"])
def test_layers_that_were_compiled_are_merged_pruned_and_plain_again(way: str) -> None:
    recipe = Recipe(tikhon.GroupSparseEnvelope(5.0, keep=0.5), EMA(0.0), tikhon.NestedDropout())
    model = recipe.prepare(mlp())
    if way == "wrapped":
        model[0] = torch.compile(model[0], backend="eager")  # type: ignore[index]
    else:
        model[0].compile(backend="eager")  # type: ignore[index]
    optimizer = sgd(model)
    recipe.attach(optimizer, steps=20)
    train(recipe, optimizer, 20)
    finished = recipe.export()
    assert finished[0].weight.shape[0] < 4  # type: ignore[index]
    plain = tikhon.core.pruning.apply_plan(mlp(), recipe.methods["wgsef"].plan)  # type: ignore[arg-type]
    plain.load_state_dict(finished.state_dict())
    assert [type(one) for one in finished.modules()] == [type(one) for one in plain.modules()]


def test_export_of_an_untrained_model_is_the_model() -> None:
    recipe = Recipe(EMA(0.5), tikhon.NestedDropout())
    model = recipe.prepare(mlp())
    assert same(weights(recipe.export()), weights(mlp()))
    assert not model[2]._forward_pre_hooks
