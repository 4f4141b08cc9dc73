"""Selections: each leaf once, in names that users know, late, and only what is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrize

from tikhon import EMA, L2, Method, Recipe, TikhonError, select
from tikhon.core.parameters import find_module

from .common import CARD, mlp, ready, rows, sgd, train


def names(model: nn.Module, where: Any = "all") -> list[str]:
    return [one.name for one in select(model, where)]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 5)
        self.header = nn.Linear(4, 5)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("weights", ["embed.weight", "layers.0.weight", "layers.2.weight", "header.weight"]),
        ("layers.*.weight", ["layers.0.weight", "layers.1.weight", "layers.2.weight"]),
        ("header", ["header.weight", "header.bias"]),
        ("head", ["head.bias"]),  # its weight is the embedding's, and goes by its first name
        ("layers.0", ["layers.0.weight", "layers.0.bias"]),
        ("layers", [f"layers.{number}.{kind}" for number in (0, 1, 2) for kind in ("weight", "bias")]),
        ("norms", ["layers.1.weight", "layers.1.bias"]),
        (nn.Linear, ["layers.0.weight", "layers.2.weight", "header.weight"]),
        (nn.Embedding, ["embed.weight"]),
        (("embed", nn.Linear), ["embed.weight", "layers.0.weight", "layers.2.weight", "header.weight"]),
        (lambda name, leaf: leaf.ndim == 1 and "layers.1" in name, ["layers.1.weight", "layers.1.bias"]),
    ],
)
def test_the_selection_language(where: Any, expected: list[str]) -> None:
    assert names(Net(), where) == expected


def test_tied_weights_come_once() -> None:
    model = Net()
    chosen = select(model, "all")
    assert len({id(one.leaf) for one in chosen}) == len(chosen) == len(list(model.parameters()))


def test_a_penalty_counts_a_tied_weight_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    model[1].weight = model[0].weight
    recipe = Recipe(L2(1.0))
    _, optimizer = ready(recipe, model)
    expected = 0.5 * float(model[0].weight.detach().square().sum())
    train(recipe, optimizer)
    assert recipe.log()["loss/l2/norm"] == pytest.approx(expected)


@pytest.mark.parametrize("where", ["layer.*", "heat", nn.Conv2d, lambda name, leaf: False])
def test_nothing_matched_is_an_error(where: Any) -> None:
    with pytest.raises(TikhonError, match="selects no trainable parameter of Net"):
        select(Net(), where)


def test_nothing_matched_gives_near_misses() -> None:
    with pytest.raises(TikhonError, match=r"Did you mean 'layers.0.weight'"):
        select(Net(), "layer.0.weights")


def test_frozen_parameters_are_left_out() -> None:
    model = Net()
    model.layers.requires_grad_(False)
    assert names(model, "weights") == ["embed.weight", "header.weight"]
    with pytest.raises(TikhonError, match="no trainable"):
        select(model, "layers")


def test_a_parameter_frozen_later_is_left_out_from_then_on() -> None:
    recipe = Recipe(L2(1.0))
    model, optimizer = ready(recipe)
    train(recipe, optimizer)
    model[0].requires_grad_(False)
    expected = 0.5 * float(model[2].weight.detach().square().sum())
    train(recipe, optimizer)
    assert recipe.log()["loss/l2/norm"] == pytest.approx(expected)


def test_parameters_of_no_attached_optimizer_are_left_out() -> None:
    recipe = Recipe(L2(1.0), EMA(0.5))
    model = recipe.prepare(mlp())
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    recipe.attach(optimizer)
    expected = 0.5 * float(model[2].weight.detach().square().sum())
    train(recipe, optimizer)
    assert recipe.log()["loss/l2/norm"] == pytest.approx(expected)
    assert set(recipe.methods["ema"].averages()) == {"2.weight", "2.bias"}


def test_a_selection_that_no_optimizer_owns_is_an_error() -> None:
    recipe = Recipe(L2(1.0, where="0"))
    model = recipe.prepare(mlp())
    recipe.attach(torch.optim.SGD(model[2].parameters(), lr=0.1))
    with pytest.raises(TikhonError, match="no attached optimizer owns"):
        recipe.loss(*rows())


# What wrappers do to names -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, when it imports its compiler
def test_names_are_those_of_the_plain_model() -> None:
    plain = names(mlp())
    assert names(torch.compile(mlp())) == plain
    assert names(nn.DataParallel(mlp())) == plain
    assert names(nn.DataParallel(torch.compile(mlp()))) == plain  # type: ignore[arg-type]
    for wrap in (torch.compile, nn.DataParallel, checkpoint_wrapper):
        inside = mlp()
        layer = inside[0]
        inside[0] = wrap(layer)
        assert names(inside) == plain
        assert names(nn.DataParallel(inside), "0") == names(mlp(), "0")  # type: ignore[arg-type]
        assert find_module(inside, "0", "a test") is layer


def test_a_module_that_is_called_module_keeps_its_name() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))
            self.module = nn.Linear(3, 3)

    assert names(Holder()) == ["weight", "module.weight", "module.bias"]
    assert names(Holder(), "module") == ["module.weight", "module.bias"]


# Re-parameterised weights --------------------------------------------------------------------------------------------


class Squared(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.square()


def test_penalties_read_the_effective_weight_and_moments_of_the_step_the_leaf() -> None:
    model = mlp()
    parametrize.register_parametrization(model[0], "weight", Squared())
    (one,) = select(model, "0.weight")
    assert one.leaf is model[0].parametrizations.weight.original
    torch.testing.assert_close(one.weight, one.leaf.square())
    recipe = Recipe(L2(1.0, where="0.weight"), EMA(0.5))
    _, optimizer = ready(recipe, model)
    leaf = one.leaf.detach().clone()
    plain = torch.autograd.grad(nn.functional.cross_entropy(model(rows()[0]), rows()[1]), [one.leaf])[0]
    train(recipe, optimizer)
    assert recipe.log()["loss/l2/norm"] == pytest.approx(0.5 * float(leaf.pow(4).sum()))
    torch.testing.assert_close(one.leaf.detach(), leaf - 0.1 * (plain + 2.0 * leaf**3))
    torch.testing.assert_close(recipe.methods["ema"].averages()["0.weight"], one.leaf.detach())


def test_averages_hold_no_spectral_norm_vectors_and_no_counters() -> None:
    model = nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), nn.BatchNorm1d(4)).double()
    recipe = Recipe(EMA(0.5))
    model.append(nn.Linear(4, 3).double())
    _, optimizer = ready(recipe, model)
    train(recipe, optimizer, 3)
    averages = recipe.methods["ema"].averages()
    assert set(averages) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with recipe.deployed():
        assert all(torch.equal(model.get_buffer(name), buffer) for name, buffer in before.items())


def compiled_layer(model: nn.Module) -> nn.Module:
    model[0] = torch.compile(model[0], backend="eager")  # type: ignore[index,operator]
    return model


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "wrap",
    [lambda model: torch.compile(model, backend="eager"), compiled_layer, nn.DataParallel],
    ids=["the model", "a layer", "parallel"],
)
def test_averages_move_though_the_model_is_compiled(wrap: Any) -> None:
    recipe = Recipe(EMA(0.5))
    model = recipe.prepare(mlp())
    compiled = wrap(model)
    optimizer = sgd(model)
    recipe.attach(optimizer, model=compiled)
    train(recipe, optimizer)
    first = {name: value.clone() for name, value in recipe.methods["ema"].averages().items()}
    train(recipe, optimizer, 2)
    second = recipe.methods["ema"].averages()
    assert all(not torch.equal(first[name], second[name]) for name in first)


def test_learning_rates_are_those_of_a_leafs_group() -> None:
    seen: dict[str, Any] = {}

    class Asks(Method):
        card = CARD
        slots = {"after_step": "map"}

        def after_step(self, model: nn.Module, step: Any) -> None:
            seen.update({one.name: step.learning_rate(one.leaf) for one in step.select("weights")})

    recipe = Recipe(Asks())
    model = recipe.prepare(mlp())
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    recipe.attach(optimizer)
    optimizer.param_groups[1]["lr"] = 0.01  # as a scheduler does
    train(recipe, optimizer)
    assert seen == {"0.weight": 0.5, "2.weight": 0.01}


def test_reading_an_effective_weight_moves_nothing() -> None:
    """A spectral norm in train mode takes a step of its power iteration whenever its weight is read."""
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    (chosen,) = select(layer, "weights")
    weight = chosen.weight
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())
    assert layer.parametrizations.weight[0].training  # type: ignore[union-attr, index]
    torch.testing.assert_close(weight, layer.eval().weight)
