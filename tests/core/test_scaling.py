"""Skipped steps: a gradient scaler whose step did not happen moves nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from tikhon import EMA, L2, Method, Recipe

from .common import CARD, Remembering, mlp, ready, rows, same, train, weights

INITIAL = 2.0**16


class Draws(Method):
    card = CARD
    slots = {"batch": "augment", "gradients": "project", "after_step": "map"}

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []
        self.norms: list[float] = []
        self.after = 0

    def batch(self, inputs: Any, target: Any, step: Any) -> Any:
        self.drawn.append(float(torch.rand((), generator=step.generator())))
        return inputs, target

    def gradients(self, parameters: Sequence[Any], step: Any) -> None:
        self.norms.append(float(torch.stack([one.leaf.grad.norm() for one in parameters]).norm()))

    def after_step(self, model: nn.Module, step: Any) -> None:
        self.after += 1


def optimizer_of(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "fused adam":
        return torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    # Without momentum: torch 2.13 leaves its buffers uninitialised where the first fused step on a CPU is skipped.
    return torch.optim.SGD(model.parameters(), lr=0.01, fused=kind == "fused sgd")


def scaled_step(
    recipe: Recipe, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, overflow: bool, order: str
) -> None:
    """One step of the usual loop; an overflow is real: one gradient becomes infinite."""
    x, y = (part.float() if part.is_floating_point() else part for part in rows())
    if "late" not in order:
        optimizer.zero_grad(set_to_none=order == "zero to none")
    loss = recipe.loss(x, y, index=torch.arange(8))
    if "late" in order:
        optimizer.zero_grad()
    scaler.scale(loss).backward()
    if overflow:
        optimizer.param_groups[0]["params"][0].grad.fill_(float("inf"))
    scaler.step(optimizer)
    scaler.update()
    if overflow and order == "zero late, and say so":
        recipe.skip_step()


# Without fused kernels the scaler calls no hook and marks no gradient, so there the skip is only seen once gradients
# have been zeroed: before the next loss, as loops with a scaler do. A loop that zeroes later says so.
@pytest.mark.parametrize(
    ("kind", "order"),
    [
        ("sgd", "zero to none"),
        ("sgd", "zero in place"),
        ("sgd", "zero late, and say so"),
        *(
            (kind, order)
            for kind in ("fused sgd", "fused adam")
            for order in ("zero to none", "zero in place", "zero late")
        ),
    ],
)
def test_a_skipped_step_moves_nothing(kind: str, order: str) -> None:
    if kind != "sgd":
        assert optimizer_of(kind, mlp().float())._step_supports_amp_scaling  # type: ignore[attr-defined]

    def run(overflows: Sequence[bool]) -> tuple[Recipe, list[torch.Tensor], Draws]:
        draws = Draws()
        recipe = Recipe(Remembering(), EMA(0.5), L2(0.1), draws)
        model = recipe.prepare(mlp().float(), samples=8)
        optimizer = optimizer_of(kind, model)
        recipe.attach(optimizer)
        # A growth interval out of reach; a skip halves the scale, which is a power of two and so changes no bit.
        scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=1000)
        for overflow in overflows:
            before = (weights(model), recipe.step, draws.after, recipe.methods["remembering"].table.clone())  # type: ignore[union-attr,operator]
            averages = {name: value.clone() for name, value in recipe.methods["ema"].averages().items()}
            scaled_step(recipe, optimizer, scaler, overflow=overflow, order=order)
            if overflow:
                assert same(weights(model), before[0])
                assert (recipe.step, draws.after) == before[1:3]
                after = recipe.methods["remembering"].table  # type: ignore[union-attr]
                assert torch.equal(after, before[3]) or not after.any()  # type: ignore[operator,union-attr]
                now = recipe.methods["ema"].averages()
                assert now.keys() == averages.keys()
                assert all(torch.equal(now[name], averages[name]) for name in now)
        return recipe, weights(model), draws

    bumpy, with_skips, drawn = run([True, False, True, True, False, False])
    smooth, without, expected = run([False, False, False])
    assert bumpy.step == smooth.step == 3
    assert same(with_skips, without)
    assert torch.equal(bumpy.methods["remembering"].table, smooth.methods["remembering"].table)  # type: ignore[arg-type]
    assert [drawn.drawn[i] for i in (1, 4, 5)] == expected.drawn  # the step is drawn again as if it had not been tried
    assert drawn.norms == pytest.approx(expected.norms)


def test_a_skip_is_seen_when_the_parameter_that_told_it_is_frozen() -> None:
    draws = Draws()
    recipe = Recipe(draws)
    model, optimizer = ready(recipe, mlp().float())
    scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=1000)
    scaled_step(recipe, optimizer, scaler, overflow=False, order="zero to none")
    model[0].weight.requires_grad_(False)
    optimizer.param_groups[0]["params"].reverse()  # the overflow is in another one
    scaled_step(recipe, optimizer, scaler, overflow=True, order="zero to none")
    scaled_step(recipe, optimizer, scaler, overflow=False, order="zero to none")
    assert recipe.step == 2
    assert recipe.log()["skipped/steps"] == 1
    assert draws.drawn[1] == draws.drawn[2]  # drawn again, not as a further micro-batch


def test_detaching_leaves_no_hook_on_a_parameter() -> None:
    recipe = Recipe(L2(0.1))
    model, optimizer = ready(recipe)
    train(recipe, optimizer)
    assert any(one._post_accumulate_grad_hooks for one in model.parameters())
    recipe.detach()
    assert not any(one._post_accumulate_grad_hooks for one in model.parameters())


@pytest.mark.parametrize("kind", ["sgd", "fused sgd", "fused adam"])
def test_gradients_and_penalties_are_unscaled_under_a_scaler(kind: str) -> None:
    def run(scale: bool) -> tuple[list[torch.Tensor], list[float]]:
        draws = Draws()
        recipe = Recipe(L2(0.5), draws)
        model = recipe.prepare(mlp().float())
        optimizer = optimizer_of(kind, model)
        recipe.attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, enabled=scale)
        for _ in range(3):
            scaled_step(recipe, optimizer, scaler, overflow=False, order="zero to none")
        return weights(model), draws.norms

    scaled, plain = run(True), run(False)
    assert scaled[1] == pytest.approx(plain[1], rel=1e-5)
    for one, other in zip(scaled[0], plain[0], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["sgd", "fused sgd"])
def test_resuming_after_a_skipped_step_goes_on_as_without_the_stop(kind: str) -> None:
    recipe = Recipe(Remembering(), Draws())
    model = recipe.prepare(mlp().float(), samples=8)
    optimizer = optimizer_of(kind, model)
    recipe.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=1000)
    scaled_step(recipe, optimizer, scaler, overflow=False, order="zero to none")
    table = recipe.methods["remembering"].table  # type: ignore[union-attr]
    scaled_step(recipe, optimizer, scaler, overflow=True, order="zero to none")
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict(), recipe.state_dict()))
    scaled_step(recipe, optimizer, scaler, overflow=False, order="zero to none")

    resumed = Recipe(Remembering(), Draws())
    other = resumed.prepare(mlp().float(), samples=8)
    other_optimizer = optimizer_of(kind, other)
    resumed.attach(other_optimizer)
    other.load_state_dict(state[0])
    other_optimizer.load_state_dict(state[1])
    resumed.load_state_dict(state[2])
    assert torch.equal(resumed.methods["remembering"].table, table)  # type: ignore[arg-type]
    fresh = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=1000)
    scaled_step(resumed, other_optimizer, fresh, overflow=False, order="zero to none")
    assert same(weights(other), weights(model))
    assert torch.equal(resumed.methods["remembering"].table, recipe.methods["remembering"].table)  # type: ignore[arg-type]
    assert resumed.methods["draws"].drawn[-1] == recipe.methods["draws"].drawn[-1]  # type: ignore[index,union-attr]


class Headless(nn.Module):
    """The parameter registered last takes no part, as the pooler of many language models."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused = mlp(), nn.Linear(2, 2).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.mark.parametrize("last", ["unused", "not owned", "frozen"])
def test_a_skipped_step_is_seen_whatever_the_last_parameter_is(last: str) -> None:
    draws = Draws()
    recipe = Recipe(draws)
    model = recipe.prepare(Headless().float())
    if last == "frozen":
        model.unused.requires_grad_(False)
    optimizer = torch.optim.SGD(model.body.parameters() if last == "not owned" else model.parameters(), lr=0.01)
    recipe.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=1000)
    for overflow in (True, False):
        scaled_step(recipe, optimizer, scaler, overflow=overflow, order="zero to none")
    assert draws.drawn[0] == draws.drawn[1]
    assert recipe.step == 1


def test_zeroing_gradients_in_place_between_windows_is_no_skip() -> None:
    draws = Draws()
    recipe = Recipe(draws)
    _, optimizer = ready(recipe)
    x, y = rows()
    for _ in range(2):
        optimizer.zero_grad(set_to_none=False)
        for part in (slice(0, 4), slice(4, 8)):
            recipe.loss(x[part], y[part]).backward()
        optimizer.step()
    assert len(set(draws.drawn)) == 4
    train(recipe, optimizer)
    assert recipe.step == 3
