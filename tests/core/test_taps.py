"""Taps: features recorded only inside passes of the recipe, shared, cleared, and gone from copies."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tikhon import Method, MixUp, Recipe, TikhonError

from .common import CARD, Remembering, mlp, ready, rows, train


class Reads(Method):
    card = CARD

    def __init__(self, at: str = "1") -> None:
        super().__init__()
        self.at = at
        self.features: list[Any] = []

    def taps(self, model: nn.Module) -> list[str]:
        return [self.at]

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        self.features.append(step.tap(self.at))
        return {}


def test_a_tap_holds_what_went_in_and_what_came_out() -> None:
    method = Reads()
    recipe = Recipe(method)
    model, _ = ready(recipe)
    x, y = rows()
    recipe.loss(x, y)
    feature = method.features[0]
    assert torch.equal(feature.input, model[0](x))
    assert torch.equal(feature.output, model[1](model[0](x)))
    assert feature.output.requires_grad


def test_taps_record_inside_passes_of_the_recipe_only() -> None:
    method = Reads()
    recipe = Recipe(method)
    model, _ = ready(recipe)
    x, y = rows()
    model(x)
    assert not recipe._run.taps._features
    with torch.no_grad():
        recipe.loss(x, y)
    assert not recipe._run.taps._features
    recipe.loss(x, y)
    assert not recipe._run.taps._features  # cleared: no graph is kept alive
    assert not recipe._run.features


def test_taps_are_cleared_after_a_failed_loss_too() -> None:
    recipe = Recipe(Reads())
    ready(recipe)
    x, y = rows()
    with pytest.raises(TikhonError):
        recipe.loss(x * float("nan"), y)
    assert not recipe._run.features


def test_features_die_with_the_loss() -> None:
    method = Reads()
    recipe = Recipe(method)
    ready(recipe)
    loss = recipe.loss(*rows())
    feature = weakref.ref(method.features.pop().output)
    del loss
    gc.collect()
    assert feature() is None


def test_methods_share_one_tap() -> None:
    one, other = Reads(), Reads().named("other")
    recipe = Recipe(one, other)
    model, _ = ready(recipe)
    assert len(model[1]._forward_hooks) == 1
    recipe.loss(*rows())
    assert one.features[0] is other.features[0]


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.calls = mlp(), 0

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False)


def test_under_checkpointing_the_first_call_counts() -> None:
    method = Reads("body.1")
    recipe = Recipe(method)
    model, _optimizer = ready(recipe, Checkpointed())
    x, y = rows()
    loss = recipe.loss(x, y)
    first = method.features[0].output
    loss.backward()  # calls the body again
    assert not recipe._run.taps._features
    assert method.features[0].output is first
    assert torch.equal(first, model.body[1](model.body[0](x)))


def test_a_module_called_twice_is_recorded_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    method = Reads("layer")
    recipe = Recipe(method)
    ready(recipe, Twice())
    x, y = rows()
    recipe.loss(x, y)
    assert torch.equal(method.features[0].input, x)


def test_a_copy_of_the_model_records_nothing_and_does_not_hold_the_recipe() -> None:
    method = Reads()
    recipe = Recipe(method)
    model, _ = ready(recipe)
    twin = copy.deepcopy(model)
    x, y = rows()
    model.register_forward_pre_hook(lambda module, args: (twin(args[0] + 1.0), None)[1])  # as a teacher does
    recipe.loss(x, y)
    assert torch.equal(method.features[0].input, model[0](x))
    held = weakref.ref(recipe._run.taps)
    recipe.detach()
    del recipe, method
    gc.collect()
    assert held() is None
    twin(x)


def test_clean_and_extra_passes_leave_the_features_of_the_pass_in_hand() -> None:
    class Extra(Reads):
        def terms(self, output: Tensor, target: Any, step: Any) -> Any:
            step.forward(rows(seed=5)[0])
            return super().terms(output, target, step)

    method = Extra()
    recipe = Recipe(method, MixUp(), Remembering())
    model, optimizer = ready(recipe)
    inputs: list[Tensor] = []
    model[0].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    train(recipe, optimizer)
    assert len(inputs) >= 2
    torch.testing.assert_close(method.features[0].input, nn.functional.linear(inputs[0], *mlp()[0].parameters()))


def test_unknown_and_silent_taps_are_errors() -> None:
    with pytest.raises(TikhonError, match="no module 'layer1'"):
        Recipe(Reads("layer1")).prepare(mlp())

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.spare = mlp(), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    recipe = Recipe(Reads("spare"))
    ready(recipe, Unused())
    with pytest.raises(TikhonError, match="tap on 'spare' recorded nothing"):
        recipe.loss(*rows())


def test_an_extra_pass_has_features_of_its_own() -> None:
    class Looks(Reads):
        def terms(self, output: Tensor, target: Any, step: Any) -> Any:
            doubled, features = step.forward_with_taps(2.0 * step.inputs)
            self.features += [doubled, features[self.at], step.tap(self.at)]
            return {}

    method = Looks()
    recipe = Recipe(method)
    model, _ = ready(recipe)
    x, y = rows()
    recipe.loss(x, y)
    doubled, extra, first = method.features
    torch.testing.assert_close(doubled, model(2.0 * x))
    torch.testing.assert_close(extra.input, model[0](2.0 * x))
    torch.testing.assert_close(first.input, model[0](x))
