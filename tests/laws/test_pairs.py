"""Every pair of methods: refused in a sentence that names both, or trained to the same bits in either order."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

import tikhon

from .rows import CLASSIFICATION, CLASSIFYING, METHODS, make, problem_of
from .training import Training, differing, obeys, state_of


def share_a_problem(one, other):
    """Two methods that each ask for a problem of their own, or one that cannot take the other's, have nothing in
    common to be tried on."""
    if one in CLASSIFYING and other in CLASSIFYING:
        return True
    return (one in CLASSIFYING or other in CLASSIFYING) and "classes" not in make(one).needs | make(other).needs


PAIRS = [pair for pair in combinations(METHODS, 2) if share_a_problem(*pair)]


def refusal(*names):
    """The sentence with which a recipe refuses these methods, or None."""
    try:
        tikhon.Recipe(*map(make, names), base=problem_of(*names).base)
    except tikhon.TikhonError as error:
        return str(error)
    return None


def refuse_alone(*names):
    """Skip a pair of which one refuses, by itself, the problem that the other needs: it says nothing of the pair."""
    problem = problem_of(*names)
    for name in names if problem.base is not CLASSIFICATION.base else ():
        try:
            Training.of(make(name), problem=problem).until(1)
        except tikhon.TikhonError as error:
            pytest.skip(f"not on a problem of {', '.join(names)}: {error}")


def trained(*names):
    torch.manual_seed(0)
    return state_of(Training.of(*map(make, names)).until(3))


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[f"{one}+{other}" for one, other in PAIRS])
def test_pair_is_refused_or_independent_of_order(one, other, record_property):
    obeys(one, "pairs")
    obeys(other, "pairs")
    sentence = refusal(one, other)
    assert refusal(other, one) == sentence
    if sentence is not None:
        record_property("refused", sentence)
        assert one in sentence
        assert other in sentence
        return
    refuse_alone(one, other)
    state = trained(one, other)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert not differing(trained(other, one), state)


def test_as_many_as_go_together_do_not_depend_on_order():
    chosen: list[str] = []
    for name in CLASSIFYING:
        if refusal(*chosen, name) is None:
            chosen.append(name)
    assert len(chosen) > len(CLASSIFYING) // 2
    assert not differing(trained(*reversed(chosen)), trained(*chosen))
