"""`tikhon explain`."""

import pytest
from commands import refused, run

from tikhon import SAM, Recipe, TikhonError


def test_moments_come_in_the_order_of_the_step_with_slots() -> None:
    said = run("explain", "perp_grad+elr+mixup(alpha=0.4)+label_smoothing").stdout
    moments = ("batch", "remember", "terms", "gradients")
    lines = [line.split() for line in said.splitlines()]
    acting = [(words[0], words[1]) for words in lines if words and words[0] in moments]
    assert acting == [("batch", "mixup"), ("remember", "elr"), ("terms", "elr"), ("gradients", "perp_grad")]
    assert "mixup (mix)" in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_order_of_listing_is_no_order() -> None:
    assert run("explain", "elr+mixup").stdout == run("explain", "mixup+elr").stdout


def test_plain_training_and_early_stopping_are_recipes_too() -> None:
    assert run("explain", "none").stdout.strip() == "No methods: plain training."
    assert "keeps the weights of the epoch that was best" in run("explain", "elr+early_stopping").stdout


def test_what_cannot_run_together_is_refused_in_the_recipes_own_sentence() -> None:
    with pytest.raises(TikhonError) as refusal:
        Recipe(SAM(), SAM())
    assert str(refusal.value) in refused("explain", "sam+sam")


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        ("elrr", "Did you mean 'elr'?"),
        ("elr(", "is not a recipe"),
        ("elr(strenth=3)", "strenth"),
        ("elr(strength=-1)", "strength"),
        ("elr(3)", "name(argument=value"),
    ],
)
def test_wrong_recipes_are_named(recipe: str, part: str) -> None:
    assert part in refused("explain", recipe)
