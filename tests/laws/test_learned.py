"""Learned strengths: what a method's strength does to the validation loss through one step, or a refusal."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch

import tikhon
from tikhon import Learned, TikhonError, stepwise
from tikhon.core.catalogue import methods
from tikhon.core.method import strengths

from .rows import METHODS, ROWS, Row, arguments_of, problem_of
from .training import EPOCHS, SAMPLES, STEPS, batches, network

SHARE, RATE = 0.02, 1e-5
STRENGTHS = [(name, scalar) for name in METHODS for scalar in strengths(methods()[name].load())]
OTHERS = [
    (name, argument)
    for name in METHODS
    for argument, one in inspect.signature(methods()[name].load().__init__).parameters.items()
    if "float" in str(one.annotation) and (name, argument) not in STRENGTHS
]
OTHERWISE = {
    ("ibp", "eps"): "it scales by the largest eps of training, and that of a schedule is another",
    (
        "solver_reg",
        "strength",
    ): "an adaptive solver takes other steps with other weights, of which autograd knows nothing",
}
"""Where a step with another strength differs in more than that."""


def given(name: str, scalar: str) -> float:
    kind = methods()[name].load()
    value = arguments_of(name).get(scalar, inspect.signature(kind.__init__).parameters[scalar].default)
    return float(value) if isinstance(value, (int, float)) and value > 0.0 else 0.5


def trained(name: str, scalar: str, strength: Any, held_out: list[Any]) -> tuple[dict[str, float], float]:
    """The hypergradients in the second of two steps, where the strength is learned; the validation loss after it."""
    problem = problem_of(name)
    method = methods()[name].load()(**{**arguments_of(name), scalar: strength})
    recipe = tikhon.Recipe(method, base=problem.base, output=problem.output, seed=5)
    learned = isinstance(strength, Learned)
    if learned:
        recipe.tune(held_out, every=2)
    model = recipe.prepare(network(problem=problem, dtype=torch.float64), samples=SAMPLES)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    recipe.attach(optimizer, steps=STEPS, epochs=EPOCHS)
    ROWS.get(name, Row()).begin(recipe)
    staged: dict[str, float] = {}
    torch.manual_seed(0)
    for index, inputs, labels in batches(0, 2, torch.float64, problem):
        optimizer.zero_grad()
        loss = recipe.loss(inputs, labels, index=index)
        assert torch.isfinite(loss)
        tuning = recipe._training.tuning
        staged = {} if tuning is None else {key: float(value) for key, value in (tuning._staged or {}).items()}
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return staged, float(recipe.loss(*held_out[0]))


def attempted(name: str, scalar: str, strength: Learned, held_out: list[Any]) -> tuple[str, dict[str, float]]:
    try:
        return "", trained(name, scalar, strength, held_out)[0]
    except TikhonError as error:
        return str(error), {}


@pytest.mark.parametrize(("name", "argument"), OTHERS)
def test_no_other_number_is_learned(name: str, argument: str) -> None:
    arguments = {**arguments_of(name), argument: Learned(0.5, 0.1, 0.9)}
    with pytest.raises((TikhonError, TypeError)):  # TypeError: of a constructor that computes with it
        tikhon.Recipe(methods()[name].load()(**arguments), base=problem_of(name).base)


@pytest.mark.parametrize(("name", "scalar"), STRENGTHS)
def test_a_strength_is_learned_by_what_it_does_or_refused(name: str, scalar: str) -> None:
    problem = problem_of(name)
    held_out = [(inputs, labels) for _, inputs, labels in batches(5, 6, torch.float64, problem)]
    value = given(name, scalar)
    try:
        learned = Learned(value, (1.0 - SHARE) * value, (1.0 + SHARE) * value)
        methods()[name].load()(**{**arguments_of(name), scalar: learned})
    except TikhonError:  # the argument ends here
        value /= 1.0 + SHARE
        learned = Learned(value, (1.0 - SHARE) * value, (1.0 + SHARE) * value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*training samples are among")
        refusal, staged = attempted(name, scalar, learned, held_out)
    if refusal:
        assert "cannot be Learned" in refusal or f"{scalar} must be" in refusal
        return
    if (name, scalar) in OTHERWISE:
        return
    ends = []
    for sign in (1.0, -1.0):
        moved = stepwise({0: value, 1: (1.0 + sign * SHARE) * value}, by="step")
        ends.append(trained(name, scalar, moved, held_out)[1])
    found = staged.get(f"{name}/{scalar}", 0.0)
    assert found == pytest.approx((ends[0] - ends[1]) / (2.0 * SHARE), rel=0.03, abs=1e-13)
