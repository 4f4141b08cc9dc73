"""Every draw is a pure function of seed, method, moment, step, micro-batch: nothing to save, nobody moves another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

import tikhon
from tikhon import Method, MixUp, Recipe

from .common import CARD, ready, rows, same, train, weights


class Draws(Method):
    card = CARD
    slots = {"batch": "augment", "gradients": "noise", "after_step": "map"}

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, list[float]] = {"batch": [], "gradients": [], "after_step": [], "epoch_end": []}

    def _draw(self, moment: str, step: Any) -> None:
        self.drawn[moment].append(float(torch.rand((), generator=step.generator())))

    def batch(self, inputs: Any, target: Any, step: Any) -> Any:
        self._draw("batch", step)
        return inputs, target

    def gradients(self, parameters: Sequence[Any], step: Any) -> None:
        self._draw("gradients", step)

    def after_step(self, model: nn.Module, step: Any) -> None:
        self._draw("after_step", step)

    def epoch_end(self, step: Any) -> None:
        self._draw("epoch_end", step)


def draws(*others: Method, seed: int = 0, micro: int = 1, steps: int = 3, key: str = "draws") -> dict[str, list[float]]:
    method = Draws().named(key)
    recipe = Recipe(method, *others, seed=seed)
    _, optimizer = ready(recipe)
    x, y = rows()
    for _ in range(steps):
        for part in range(micro):
            of = slice(part * 8 // micro, (part + 1) * 8 // micro)
            recipe.loss(x[of], y[of]).backward()
        optimizer.step()
        torch.rand(3)  # somebody else's use of the global generator
    recipe.end_epoch()
    return method.drawn


def test_the_same_seed_draws_the_same_and_everything_differs_otherwise() -> None:
    first = draws()
    assert first == draws()
    every = [value for values in first.values() for value in values]
    assert len(set(every)) == len(every) == 3 + 3 + 3 + 1
    assert set(every).isdisjoint(value for values in draws(seed=1).values() for value in values)
    assert set(every).isdisjoint(value for values in draws(key="other").values() for value in values)


def test_another_method_does_not_move_the_first_ones_draws() -> None:
    assert draws() == draws(MixUp(), Draws().named("a"), Draws().named("z"))


def test_micro_batches_draw_apart_and_the_step_once() -> None:
    whole, split = draws(), draws(micro=2)
    assert len(set(split["batch"])) == 6
    assert split["batch"][::2] == whole["batch"]
    for moment in ("gradients", "after_step", "epoch_end"):
        assert split[moment] == whole[moment]


def test_ranks_draw_apart_on_batches_and_alike_in_the_step() -> None:
    def of_rank(rank: int) -> dict[str, list[float]]:
        method = Draws()
        recipe = Recipe(method)
        _, optimizer = ready(recipe)
        recipe._run.rank = rank  # what attach reads from torch.distributed
        train(recipe, optimizer, 2)
        recipe.end_epoch()
        return method.drawn

    first, second = of_rank(0), of_rank(1)
    assert set(first["batch"]).isdisjoint(second["batch"])
    for moment in ("gradients", "after_step", "epoch_end"):
        assert first[moment] == second[moment]


def test_resume_needs_no_state_of_any_generator() -> None:
    method = Draws()
    recipe = Recipe(method)
    _, optimizer = ready(recipe)
    train(recipe, optimizer, 2)
    state = recipe.state_dict()
    train(recipe, optimizer, 2)
    later = Draws()
    resumed = Recipe(later)
    _, other = ready(resumed)
    resumed.load_state_dict(state)
    torch.manual_seed(99)
    train(resumed, other, 2)
    assert later.drawn["batch"] == method.drawn["batch"][2:]
    assert not any("generator" in key for key in state["methods"]["draws"])


def test_several_draws_in_one_moment_continue_one_stream() -> None:
    seen: list[float] = []

    class Twice(Method):
        card = CARD
        slots = {"batch": "augment"}

        def batch(self, inputs: Any, target: Any, step: Any) -> Any:
            seen.extend(float(torch.rand((), generator=step.generator())) for _ in range(2))
            return inputs, target

    recipe = Recipe(Twice())
    ready(recipe)
    recipe.loss(*rows())
    assert seen[0] != seen[1]


def test_methods_leave_the_global_generator_alone() -> None:
    recipe = Recipe(MixUp(), tikhon.SAM(), tikhon.EMA(), tikhon.NestedDropout(scale=2.0))
    _model, optimizer = ready(recipe)
    before = torch.get_rng_state()
    train(recipe, optimizer, 3)
    recipe.end_epoch()
    recipe.export()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("listing", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_listing_order_never_matters(listing: tuple[int, ...]) -> None:
    def run(order: Sequence[int]) -> list[torch.Tensor]:
        methods = [MixUp(), MixUp(0.3).named("second"), tikhon.LabelSmoothing(0.1), tikhon.ELR(1.0)]
        recipe = Recipe(*(methods[i] for i in order))
        model, optimizer = ready(recipe)
        train(recipe, optimizer, 3)
        return weights(model)

    assert same(run(listing), run((0, 1, 2, 3)))


def test_the_callers_batch_is_untouched() -> None:
    x, y = rows()
    copies = x.clone(), y.clone()
    recipe = Recipe(MixUp(), tikhon.LabelSmoothing(0.1), tikhon.ELR())
    _, optimizer = ready(recipe)
    train(recipe, optimizer, x=x, y=y)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
