"""The plan: keys, slots, refusals of what cannot run together, and what explain prints."""

from __future__ import annotations

from typing import Any

import pytest

import tikhon
from tikhon import ELR, EMA, L2, LabelSmoothing, Method, MixUp, Recipe, TikhonError

from .common import CARD, ready, train


def test_keys_are_file_names_class_names_or_given() -> None:
    class TwoWords(Method):
        card = CARD

    assert set(Recipe(MixUp(), ELR(), TwoWords(), L2().named("head")).methods) == {"mixup", "elr", "two_words", "head"}


def test_equal_keys_are_refused_and_named_apart() -> None:
    with pytest.raises(TikhonError, match=r"Two methods have the key 'l2'.*named\('second'\)"):
        Recipe(L2(1e-4), MixUp(), L2(1e-3, where="head"))
    one = L2()
    with pytest.raises(TikhonError, match="same object"):
        Recipe(one, MixUp(), one)
    assert set(Recipe(L2(), L2(1e-3).named("second")).methods) == {"l2", "second"}


def test_state_is_kept_by_key_and_not_by_position() -> None:
    recipe = Recipe(ELR(), EMA(0.5))
    _, optimizer = ready(recipe)
    train(recipe, optimizer, 2)
    turned = Recipe(EMA(0.5), ELR())
    ready(turned)
    turned.load_state_dict(recipe.state_dict())
    assert turned.step == 2


def acting(name: str, slot: str, log: list[str]) -> Method:
    class Acts(Method):
        card = CARD
        slots = {"batch": slot}

        def batch(self, inputs: Any, target: Any, step: Any) -> Any:
            log.append(name)
            return inputs, target

    return Acts().named(name)


def test_slots_and_then_keys_decide_the_order() -> None:
    log: list[str] = []
    parts = [("c", "select"), ("b", "augment"), ("a", "mix"), ("d", "augment")]
    recipe = Recipe(*(acting(name, slot, log) for name, slot in parts))
    _, optimizer = ready(recipe)
    train(recipe, optimizer)
    assert log == ["c", "b", "d", "a"]
    assert "c (select) -> b (augment) -> d (augment) -> a (mix)" in recipe.explain()


def test_a_method_must_say_where_in_a_moment_it_acts() -> None:
    with pytest.raises(TikhonError, match=r"must say where: slots = \{'batch': one of select, augment, mix\}"):
        Recipe(acting("x", "blend", []))


def test_what_breaks_anothers_need_is_refused_with_both_names() -> None:
    class Wants(Method):
        card = CARD
        needs = frozenset({"plain weights"})

    class Breaks(Method):
        card = CARD
        breaks = frozenset({"plain weights"})

    with pytest.raises(TikhonError, match="wants and breaks cannot run together: wants needs plain weights"):
        Recipe(Breaks(), Wants())


class Holds(Method):
    card = CARD

    def __init__(self, share: float, strength: tikhon.Strength = 0.1, inner: Method | None = None) -> None:
        super().__init__()
        self.share, self.strength, self.inner = share, strength, inner


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (lambda one: tikhon.BANG(share=one), "bang's share is no strength and cannot be Learned. Give a value"),
        (lambda one: tikhon.BANG(share=one, smoothing=one), "bang's share is no"),
        (lambda one: tikhon.During(Holds(one).named("held")), "held's share is no"),
        (lambda one: Holds(0.5, inner=Holds(one).named("within")), "holds's within/share is no"),
    ],
)
def test_learned_is_refused_where_nothing_learns_it(method: Any, match: str) -> None:
    with pytest.raises(TikhonError, match=match):
        Recipe(MixUp(), method(tikhon.Learned(0.5, 0.1, 0.9)))


@pytest.mark.parametrize("given", [tikhon.Learned(0.5, 0.1, 0.9), tikhon.linear(0.1, 0.9)])
@pytest.mark.parametrize(
    "method",
    [
        lambda one: tikhon.DataDiet(keep=one),
        lambda one: tikhon.DataDiet(skip_hardest=one),
        lambda one: tikhon.RegularizedMaskTuning(start=one),
        lambda one: tikhon.RegularizedMaskTuning(threshold=one),
        lambda one: tikhon.PiSSA(alpha=one),
        lambda one: tikhon.SORSA(alpha=one),
    ],
)
def test_methods_that_reckon_with_a_number_at_once_refuse_what_changes(method: Any, given: Any) -> None:
    with pytest.raises(TikhonError, match=r"A number is needed where (Learned|Schedule)\(.*annotated Strength"):
        method(given)


def test_learned_is_taken_where_it_is_a_strength() -> None:
    strength = tikhon.Learned(0.5, 0.1, 0.9)
    recipe = Recipe(tikhon.BANG(0.5, smoothing=strength), Holds(0.5, strength), MixUp())
    assert "bang/smoothing is learned between 0.1 and 0.9" in recipe.explain()


@pytest.mark.parametrize("moment", ["around", "loss_function", "evaluate", "averages"])
def test_moments_with_one_owner(moment: str) -> None:
    owner = type("Owner", (Method,), {"card": CARD, moment: lambda self, *args: args[0] if args else {}})
    with pytest.raises(TikhonError, match="one and other cannot run together"):
        Recipe(owner().named("one"), owner().named("other"))


def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"not classes: write tk.MixUp\(...\)"):
        Recipe(MixUp)  # type: ignore[arg-type]
    with pytest.raises(TikhonError, match="'mixup' is not one"):
        Recipe("mixup")  # type: ignore[arg-type]


def test_explain_prints_each_moment_with_who_acts() -> None:
    recipe = Recipe(tikhon.During(MixUp(), 0.0, 0.5), LabelSmoothing(), EMA(), L2())
    lines = {line.split()[0]: line for line in recipe.explain().splitlines()}
    assert lines["batch"].endswith("mixup (mix)")
    assert lines["targets"].endswith("label_smoothing (smooth)")
    assert lines["parameter_terms"].endswith(" l2")
    assert lines["after_step"].endswith("ema (average)")
    assert lines["mixup"] == "mixup acts while 0 <= progress < 0.5"
    assert Recipe().explain() == "no methods: plain training"
