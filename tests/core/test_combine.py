"""OneOf and During: methods made of methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tikhon
from tikhon import ELR, EMA, L2, SAM, During, LabelSmoothing, Method, MixUp, NestedDropout, OneOf, Recipe, TikhonError

from .common import CARD, ready, same, train, weights


class Notes(Method):
    card = CARD
    slots = {"batch": "augment"}

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def batch(self, inputs: Any, target: Any, step: Any) -> Any:
        self.steps.append(step.number)
        return inputs, target


def test_one_of_draws_one_method_a_batch_with_its_probability() -> None:
    one, other = Notes().named("one"), Notes().named("other")
    recipe = Recipe(OneOf(one, other, probabilities=[0.2, 0.5]))
    _, optimizer = ready(recipe)
    train(recipe, optimizer, 300)
    assert set(one.steps).isdisjoint(other.steps)
    # Five standard deviations of the binomial distribution, with a fixed seed.
    assert abs(len(one.steps) - 60) < 5 * (300 * 0.2 * 0.8) ** 0.5
    assert abs(len(other.steps) - 150) < 5 * (300 * 0.5 * 0.5) ** 0.5


def test_one_of_does_not_depend_on_the_listing_and_keeps_chances_with_methods() -> None:
    def run(turned: bool) -> list[torch.Tensor]:
        methods = [(MixUp(1.0), 0.3), (MixUp(0.2).named("mild"), 0.6)]
        if turned:
            methods.reverse()
        recipe = Recipe(OneOf(*(m for m, _ in methods), probabilities=[p for _, p in methods]))
        model, optimizer = ready(recipe)
        train(recipe, optimizer, 5)
        return weights(model)

    assert same(run(False), run(True))


def test_one_of_with_no_chance_is_plain_training() -> None:
    plain, never = Recipe(), Recipe(OneOf(MixUp(), probabilities=[0.0]))
    ends = []
    for recipe in (plain, never):
        model, optimizer = ready(recipe)
        train(recipe, optimizer, 3)
        ends.append(weights(model))
    assert same(*ends)


@pytest.mark.parametrize(
    ("methods", "probabilities", "message"),
    [
        ((), None, "at least one"),
        ((MixUp(), L2()), None, "l2 acts in parameter_terms"),
        ((MixUp(), NestedDropout()), None, "nested_dropout acts in check, prepare, export"),
        ((MixUp(),), [0.5, 0.5], "one probability a method"),
        ((MixUp(),), [-0.1], "one probability a method"),
        ((MixUp(), MixUp().named("b")), [0.7, 0.7], "at most 1 in sum"),
        ((MixUp(0.2), MixUp(1.0)), None, r"equal keys \(mixup, mixup\)"),
        ((MixUp,), None, "takes methods"),
        ((During(MixUp(), 0, 0.5),), None, "takes methods"),
    ],
)
def test_one_of_refuses(methods: tuple[Any, ...], probabilities: list[float] | None, message: str) -> None:
    with pytest.raises(TikhonError, match=message):
        OneOf(*methods, probabilities=probabilities)


def test_schedules_inside_one_of_count_and_show() -> None:
    recipe = Recipe(OneOf(MixUp(tikhon.linear(0, 1))))
    model = recipe.prepare(ready(Recipe())[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TikhonError, match="mixup/alpha follows progress"):
        recipe.attach(optimizer)
    recipe.attach(optimizer, steps=4)
    train(recipe, optimizer, 2)
    assert recipe.log()["one_of/mixup/alpha"] == 0.5


def test_one_of_needs_what_its_methods_need() -> None:
    class NeedsIds(Notes):
        needs = frozenset({"ids"})

    with pytest.raises(TikhonError, match="samples="):
        Recipe(OneOf(MixUp(), NeedsIds())).prepare(ready(Recipe())[0])


@pytest.mark.parametrize(
    ("begin", "end", "steps"),
    [(0.0, 0.5, [0, 1]), (0.5, 1.0, [2, 3]), (0.25, 0.75, [1, 2]), (0.0, 1.0, [0, 1, 2, 3])],
)
def test_during_acts_from_begin_to_before_end(begin: float, end: float, steps: list[int]) -> None:
    method = Notes()
    recipe = Recipe(During(method, begin, end))
    _, optimizer = ready(recipe, steps=4)
    train(recipe, optimizer, 4)
    assert method.steps == steps


def test_during_to_the_end_includes_what_comes_after() -> None:
    method = Notes()
    recipe = Recipe(During(method, 0.5, 1.0))
    _, optimizer = ready(recipe, steps=2)
    train(recipe, optimizer, 4)
    assert method.steps == [1, 2, 3]


@pytest.mark.parametrize("method", [MixUp(), L2(1.0), SAM(0.5), LabelSmoothing(0.5), ELR(3.0)], ids=lambda m: m.key)
def test_outside_its_part_a_method_is_as_good_as_absent(method: Method) -> None:
    ends = []
    for recipe in (Recipe(), Recipe(During(method, 0.75, 1.0))):
        model, optimizer = ready(recipe, steps=8)
        train(recipe, optimizer, 6)
        middle = weights(model)
        train(recipe, optimizer, 2)
        ends.append((middle, weights(model)))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(ends[0][0], ends[1][0], strict=True))
    assert not all(torch.allclose(a, b) for a, b in zip(ends[0][1], ends[1][1], strict=True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: During(MixUp(), 0.5, 0.5), "begin < end"),
        (lambda: During(MixUp(), -0.1, 0.5), "begin < end"),
        (lambda: During(MixUp(), 0.0, 1.5), "begin < end"),
        (lambda: During(NestedDropout(), 0.0, 0.5), "cannot switch nested_dropout"),
        (lambda: During(MixUp, 0.0, 0.5), "takes methods"),
        (lambda: During(During(MixUp(), 0.0, 0.5), 0.0, 0.5), "takes methods"),
    ],
)
def test_during_refuses(build: Any, message: str) -> None:
    with pytest.raises(TikhonError, match=message):
        build()


def test_during_needs_the_length_of_training() -> None:
    recipe = Recipe(During(EMA(), 0.5, 1.0))
    model = recipe.prepare(ready(Recipe())[0])
    with pytest.raises(TikhonError, match="ema acts During a part of training"):
        recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
