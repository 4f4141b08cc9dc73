"""Riding on optimizers: closures, steps inside steps, several optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tikhon import L2, Method, MixUp, Recipe

from .common import CARD, Remembering, mlp, ready, rows, same, sgd, train, weights


class Counting(Method):
    card = CARD
    slots = {"gradients": "noise", "after_step": "map"}

    def __init__(self) -> None:
        super().__init__()
        self.gradients_seen = 0
        self.steps_seen = 0

    def gradients(self, parameters: Sequence[Any], step: Any) -> None:
        self.gradients_seen += 1
        for one in parameters:
            one.leaf.grad.mul_(0.5)

    def after_step(self, model: nn.Module, step: Any) -> None:
        self.steps_seen += 1


def closure_of(recipe: Recipe, optimizer: torch.optim.Optimizer) -> Any:
    x, y = rows()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = recipe.loss(x, y, index=torch.arange(8))
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("by_name", [True, False])
def test_a_step_with_a_closure_equals_the_plain_loop_to_the_bit(by_name: bool) -> None:
    def methods() -> tuple[Method, ...]:
        return Counting(), MixUp(), L2(0.1), Remembering()

    loop = Recipe(*methods())
    model, optimizer = ready(loop)
    train(loop, optimizer, 3)
    closed = Recipe(*methods())
    other, other_optimizer = ready(closed)
    closure = closure_of(closed, other_optimizer)
    for _ in range(3):
        other_optimizer.step(closure=closure) if by_name else other_optimizer.step(closure)
    assert same(weights(model), weights(other))
    assert closed.step == 3
    assert torch.equal(loop.methods["remembering"].table, closed.methods["remembering"].table)  # type: ignore[arg-type]


def test_lbfgs_sees_penalties_and_gradients_at_each_evaluation() -> None:
    # The independent reference adds the penalty to the loss by hand and halves all gradients in its closure.
    x, y = rows()
    plain = mlp()
    reference = torch.optim.LBFGS(plain.parameters(), lr=0.1, max_iter=4)
    evaluations = 0

    def by_hand() -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        reference.zero_grad()
        loss = F.cross_entropy(plain(x), y) + 0.05 * sum(p.square().sum() for p in plain.parameters())
        loss.backward()
        for parameter in plain.parameters():
            parameter.grad.mul_(0.5)  # type: ignore[union-attr]
        return loss

    method = Counting()
    recipe = Recipe(L2(0.1, where="all"), method)
    model = recipe.prepare(mlp())
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    recipe.attach(optimizer)
    for _ in range(2):
        reference.step(by_hand)
        optimizer.step(closure_of(recipe, optimizer))
    assert evaluations > 2
    assert (method.gradients_seen, method.steps_seen, recipe.step) == (evaluations, 2, 2)
    for one, other in zip(weights(model), weights(plain), strict=True):
        torch.testing.assert_close(one, other)


def test_lbfgs_draws_and_memories_are_those_of_one_step() -> None:
    method, drawn = Remembering(), []

    class Draws(Method):
        card = CARD
        slots = {"batch": "augment"}

        def batch(self, inputs: Any, target: Any, step: Any) -> Any:
            drawn.append(float(torch.rand((), generator=step.generator())))
            return inputs, target

    recipe = Recipe(method, Draws())
    model = recipe.prepare(mlp(), samples=8)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3)
    recipe.attach(optimizer)
    optimizer.step(closure_of(recipe, optimizer))
    assert len(drawn) > 1
    assert len(set(drawn)) == 1  # every evaluation is the same function of the weights
    row_sums = method.table.sum(1)
    torch.testing.assert_close(row_sums, torch.full_like(row_sums, 0.5))  # remembered once, not once an evaluation


def test_a_closure_that_fails_does_not_spoil_the_next_step() -> None:
    method = Counting()
    recipe = Recipe(method)
    _, optimizer = ready(recipe)

    def broken() -> torch.Tensor:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        optimizer.step(broken)
    optimizer.step(closure_of(recipe, optimizer))
    assert (method.gradients_seen, method.steps_seen, recipe.step) == (1, 1, 1)


class StepsInside(torch.optim.SGD):
    """An optimizer that is two SGD steps, one inside the other, as look-ahead optimizers are."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        super().step()
        return None


def test_only_the_outermost_step_counts() -> None:
    sgd(mlp()).step()  # torch hooks the base class's step when it is first used; then both steps run the hooks
    method = Counting()
    recipe = Recipe(method, L2(0.1))
    model = recipe.prepare(mlp())
    optimizer = StepsInside(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    reference = Recipe(Counting(), L2(0.1))
    plain, plain_optimizer = ready(reference)
    train(recipe, optimizer, 2)
    train(reference, plain_optimizer, 2)
    assert (method.gradients_seen, method.steps_seen, recipe.step) == (2, 2, 2)
    assert same(weights(model), weights(plain))


class Outer(torch.optim.Optimizer):
    """An optimizer of a group of its own whose step calls another attached optimizer's."""

    def __init__(self, parameters: Any, inner: torch.optim.Optimizer) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.within = inner

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.within.step()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.sub_(0.1 * parameter.grad)


def test_an_optimizer_that_steps_another_attached_one_is_one_step() -> None:
    method = Counting()
    recipe = Recipe(method)
    model = recipe.prepare(mlp())
    inner = torch.optim.SGD(model[0].parameters(), lr=0.1)
    outer = Outer(model[2].parameters(), inner)
    recipe.attach(inner, outer)
    reference = Recipe(Counting())
    plain, plain_optimizer = ready(reference)
    x, y = rows()
    for _ in range(2):
        model.zero_grad()
        recipe.loss(x, y).backward()
        outer.step()
    train(reference, plain_optimizer, 2)
    assert (method.gradients_seen, method.steps_seen, recipe.step) == (2, 2, 2)
    for one, other in zip(weights(model), weights(plain), strict=True):
        torch.testing.assert_close(one, other)


def test_several_optimizers_are_one_step_that_the_last_one_ends() -> None:
    method = Counting()
    recipe = Recipe(method, L2(0.1))
    model = recipe.prepare(mlp())
    first, last = (torch.optim.SGD(model[part].parameters(), lr=0.1) for part in (0, 2))
    recipe.attach(first, last)
    reference = Recipe(Counting(), L2(0.1))
    plain, plain_optimizer = ready(reference)
    x, y = rows()
    for number in range(2):
        model.zero_grad()
        recipe.loss(x, y).backward()
        first.step()
        assert (method.gradients_seen, recipe.step) == (number + 1, number)
        last.step()
        assert (method.gradients_seen, recipe.step) == (number + 1, number + 1)
    train(reference, plain_optimizer, 2)
    assert same(weights(model), weights(plain))
