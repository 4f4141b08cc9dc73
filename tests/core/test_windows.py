"""When moments run: per micro-batch, per optimizer step that really happened, per epoch; and staged memories."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon import L1, L2, Method, Recipe, Term, TikhonError
from tikhon.core.penalties import penalty_on
from tikhon.math.norms import half_squared_norm

from .common import CARD, Remembering, mlp, ready, rows, same, sgd, train, weights


class Noting(Method):
    """Writes down the moments it was called in."""

    card = CARD
    slots = {"batch": "augment", "targets": "distil", "gradients": "project", "after_step": "map"}

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.values: list[float] = []

    def batch(self, inputs: Any, target: Any, step: Any) -> Any:
        self.seen.append("batch")
        self.values.append(step.value(tikhon.linear(0, 10, by="step", over=(0, 10))))
        return inputs, target

    def remember(self, output: Tensor, target: Any, step: Any) -> None:
        self.seen.append("remember")

    def targets(self, output: Tensor, target: Any, step: Any) -> Any:
        self.seen.append("targets")
        return target

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        self.seen.append("terms")
        return {}

    def around(self, inner: Any, step: Any) -> Tensor:
        self.seen.append("around")
        return inner()

    def parameter_terms(self, model: nn.Module, step: Any) -> Any:
        self.seen.append("parameter_terms")
        return {"norm": Term(sum(p.square().sum() for p in model.parameters()), 0.5, per_sample=False)}

    def gradients(self, parameters: Sequence[Any], step: Any) -> None:
        self.seen.append("gradients")

    def after_step(self, model: nn.Module, step: Any) -> None:
        self.seen.append("after_step")

    def epoch_end(self, step: Any) -> None:
        self.seen.append("epoch_end")


def test_moments_run_as_often_as_they_should_under_accumulation() -> None:
    method = Noting()
    recipe = Recipe(method)
    _, optimizer = ready(recipe)
    x, y = rows()
    for _ in range(2):
        for part in (slice(0, 4), slice(4, 8)):
            recipe.loss(x[part], y[part]).backward()
        optimizer.step()
        optimizer.zero_grad()
    recipe.end_epoch()
    once = ["batch", "around", "remember", "targets", "terms"]
    first = [*once[:1], "parameter_terms", *once[1:]]
    assert method.seen == [*first, *once, "gradients", "after_step"] * 2 + ["epoch_end"]
    assert method.values == [0.0, 0.0, 1.0, 1.0]  # a strength is the same all through one optimizer step
    assert (recipe.step, recipe.epoch) == (2, 1)


def test_micro_batches_with_total_equal_one_batch() -> None:
    x, y = rows()
    whole = Recipe(L2(0.1))
    model, optimizer = ready(whole)
    train(whole, optimizer, 3)
    split = Recipe(L2(0.1))
    other, other_optimizer = ready(split)
    for _ in range(3):
        other_optimizer.zero_grad()
        for part in (slice(0, 3), slice(3, 8)):
            split.loss(x[part], y[part], total=8).backward()
        other_optimizer.step()
    for one, two in zip(weights(model), weights(other), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


# Penalties on parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_penalty_counts_once_whatever_the_accumulation(micro: int) -> None:
    recipe = Recipe(L2(0.25, where="all"))
    model, optimizer = ready(recipe)
    before = weights(model)
    x, y = rows()
    for part in range(micro):
        rows_of = slice(part * 8 // micro, (part + 1) * 8 // micro)
        (0.0 * recipe.loss(x[rows_of], y[rows_of])).backward()  # whatever the caller does to the loss
    optimizer.step()
    for old, new in zip(before, weights(model), strict=True):
        torch.testing.assert_close(new, old - 0.1 * 0.25 * old)


def test_a_penalty_stays_out_of_the_graph_and_shows_in_the_loss() -> None:
    recipe = Recipe(L2(0.25, where="all"))
    model, _optimizer = ready(recipe)
    x, y = rows()
    expected = F.cross_entropy(model(x), y)
    penalty = 0.125 * sum(p.square().sum() for p in weights(model))
    loss = recipe.loss(x, y)
    torch.testing.assert_close(loss, expected + penalty)
    found = torch.autograd.grad(loss, list(model.parameters()))
    plain = torch.autograd.grad(expected, list(model.parameters()))
    assert same(list(found), list(plain))
    assert recipe.log()["loss/l2/norm"] == pytest.approx(4 * float(penalty) / 4 / 0.25)


def test_clipping_of_the_caller_acts_before_penalties() -> None:
    recipe = Recipe(L2(0.25, where="all"))
    model, optimizer = ready(recipe)
    before = weights(model)
    train(recipe, optimizer, before=lambda: [p.grad.zero_() for p in model.parameters()])  # type: ignore[union-attr]
    for old, new in zip(before, weights(model), strict=True):
        torch.testing.assert_close(new, old - 0.1 * 0.25 * old)


class Sum(Method):
    """The plain sum of one layer's weights: its gradient is an expanded view of a single 1."""

    card = CARD
    slots = {"gradients": "project"}
    where = "0"

    def parameter_terms(self, model: nn.Module, step: Any) -> Any:
        return {"sum": Term(model[0].weight.sum(), 1.0, per_sample=False)}

    def gradients(self, parameters: Sequence[Any], step: Any) -> None:
        for one in parameters:
            one.leaf.grad.mul_(3.0)


def test_a_penalty_reaches_parameters_that_the_loss_does_not() -> None:
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 3)]).double()
    model.forward = lambda x: model[1](x)  # type: ignore[method-assign]
    recipe = Recipe(Sum())
    _, optimizer = ready(recipe, model)
    before = model[0].weight.detach().clone()
    train(recipe, optimizer)
    torch.testing.assert_close(model[0].weight.detach(), before - 0.3)


def test_a_penalty_in_closed_form_gives_such_parameters_a_gradient_of_their_own() -> None:
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 3)]).double()
    model.forward = lambda x: model[1](x)  # type: ignore[method-assign]
    recipe = Recipe(L2(0.25, where="all"))
    _, optimizer = ready(recipe, model)
    before = weights(model)[0]
    train(recipe, optimizer)
    gradient = model[0].weight.grad
    assert gradient is not None
    assert gradient.data_ptr() != model[0].weight.data_ptr()
    torch.testing.assert_close(gradient, 0.25 * before)


def test_penalties_with_and_without_a_graph_add_up() -> None:
    recipe = Recipe(L2(0.25), L1(0.5), Sum())
    model, optimizer = ready(recipe)
    x, y = rows()
    loss = F.cross_entropy(model(x), y) + model[0].weight.sum()
    for weight in (model[0].weight, model[2].weight):
        loss = loss + 0.125 * weight.square().sum() + 0.5 * weight.abs().sum()
    expected = torch.autograd.grad(loss, list(model.parameters()))
    before = weights(model)
    recipe.loss(x, y).backward()
    recipe.methods["sum"].gradients = lambda parameters, step: None  # type: ignore[method-assign]
    optimizer.step()
    for old, new, slope in zip(before, weights(model), expected, strict=True):
        torch.testing.assert_close(new, old - 0.1 * slope)


def test_a_slope_is_the_derivative_of_the_value_with_its_graph() -> None:
    leaves = [torch.randn(2, 3).requires_grad_(), torch.randn(4).requires_grad_()]
    term = penalty_on(leaves, 1.0, half_squared_norm, gradient=list)
    assert not term.value.requires_grad
    found = torch.autograd.grad(term.with_graph(), leaves)
    torch.testing.assert_close(list(found), [leaf.detach() for leaf in leaves])
    assert term.with_graph().item() == term.value.item()


def test_a_nan_penalty_is_named_and_forgotten() -> None:
    recipe = Recipe(L2(0.25))
    model, optimizer = ready(recipe)
    good = weights(model)
    with torch.no_grad():
        model[0].weight.mul_(1e200)
    with pytest.raises(TikhonError, match=r"at step 0 .*l2/norm is not finite"):
        train(recipe, optimizer)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), good, strict=True):
            parameter.copy_(value)
    train(recipe, optimizer)
    assert recipe.step == 1
    assert all(value.isfinite().all() for value in weights(model))


# Per-sample memories -------------------------------------------------------------------------------------------------


class Recorder(Remembering):
    """Shows in each step what targets and terms read."""

    slots = {"targets": "distil"}

    def __init__(self) -> None:
        super().__init__()
        self.read: list[Tensor] = []

    def targets(self, output: Tensor, target: Any, step: Any) -> Any:
        self.read.append(self.memory.read(target.ids).clone())
        return target

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        self.read.append(self.memory.read(target.ids).clone())
        return {}


def test_staged_rows_are_seen_by_this_step_and_committed_once_when_it_happens() -> None:
    method = Recorder()
    recipe = Recipe(method)
    model, optimizer = ready(recipe)
    x, y = rows()
    p = model(x).softmax(1).detach()
    loss = recipe.loss(x, y, index=torch.arange(8))
    assert len(method.read) == 2
    for read in method.read:
        torch.testing.assert_close(read, 0.5 * p)
    assert not method.table.any()  # the step has not happened
    loss.backward()
    assert not method.table.any()
    optimizer.step()
    torch.testing.assert_close(method.table, 0.5 * p)
    assert method.memory.staged == 0


def test_of_repeated_ids_the_last_wins() -> None:
    method = Remembering()
    recipe = Recipe(method)
    model, optimizer = ready(recipe)
    x, _y = rows()
    p = model(x).softmax(1).detach()
    train(recipe, optimizer, index=torch.tensor([3, 0, 3, 1, 3, 0, 2, 2]))
    expected = torch.zeros(8, 3, dtype=torch.float64)
    for sample, row in {3: 4, 0: 5, 1: 3, 2: 7}.items():
        expected[sample] = 0.5 * p[row]
    torch.testing.assert_close(method.table, expected)


class WritesInfinity(Remembering):
    def remember(self, output: Tensor, target: Any, step: Any) -> None:
        values = output.detach().clone()
        values[1, 0] = float("nan")
        values[2, 1] = float("inf")
        self.memory.write(target.ids, values)


def test_rows_that_are_not_finite_are_never_staged() -> None:
    method = WritesInfinity()
    recipe = Recipe(method)
    model, optimizer = ready(recipe)
    output = model(rows()[0]).detach()
    train(recipe, optimizer)
    output[1:3] = 0.0
    assert torch.equal(method.table, output)


def test_second_passes_write_nothing() -> None:
    plain, beside_sam = Remembering(), Remembering()
    for method, recipe in ((plain, Recipe(plain)), (beside_sam, Recipe(beside_sam, tikhon.SAM(radius=0.5)))):
        _, optimizer = ready(recipe)
        train(recipe, optimizer)
        assert method.memory.staged == 0
    assert torch.equal(plain.table, beside_sam.table)


def test_the_state_in_mid_window_holds_what_is_staged() -> None:
    x, y = rows()

    def half(recipe: Recipe, part: slice) -> None:
        recipe.loss(x[part], y[part], index=torch.arange(8)[part]).backward()

    method = Remembering()
    recipe = Recipe(method, tikhon.MixUp(), L2(0.1))
    model, optimizer = ready(recipe)
    half(recipe, slice(0, 4))
    state, gradients = copy.deepcopy(recipe.state_dict()), [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    half(recipe, slice(4, 8))
    optimizer.step()

    resumed_method = Remembering()
    resumed = Recipe(resumed_method, tikhon.MixUp(), L2(0.1))
    other, other_optimizer = ready(resumed)
    resumed.load_state_dict(state)
    for parameter, gradient in zip(other.parameters(), gradients, strict=True):
        parameter.grad = gradient
    half(resumed, slice(4, 8))
    other_optimizer.step()
    assert same(weights(other), weights(model))
    assert torch.equal(resumed_method.table, method.table)
    assert bool((method.table[:4] != 0).all())


def test_a_failed_micro_batch_stages_nothing_and_leaves_the_others() -> None:
    method = Remembering()
    recipe = Recipe(method)
    model, optimizer = ready(recipe)
    x, y = rows()
    p = model(x).softmax(1).detach()
    recipe.loss(x[:4], y[:4], index=torch.arange(4)).backward()
    with pytest.raises(TikhonError, match="task is not finite"):
        recipe.loss(x[4:] * float("nan"), y[4:], index=torch.arange(4, 8))
    assert method.memory.staged == 1
    optimizer.step()
    torch.testing.assert_close(method.table[:4], 0.5 * p[:4])
    assert not method.table[4:].any()


def test_a_memory_refuses_rows_of_another_width() -> None:
    memory = tikhon.PerSampleMemory()
    memory.reserve(4)
    memory.write(torch.tensor([0]), torch.ones(1, 3))
    memory.commit()
    with pytest.raises(TikhonError, match="do not fit"):
        memory.write(torch.tensor([1]), torch.ones(1, 2))


def test_frozen_last_parameters_are_no_obstacle() -> None:
    model = mlp()
    model[2].requires_grad_(False)
    recipe = Recipe(L2(0.1))
    recipe.prepare(model)
    optimizer = sgd(model)
    recipe.attach(optimizer)
    train(recipe, optimizer)
    assert recipe.step == 1
