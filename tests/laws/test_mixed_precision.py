"""Mixed precision: under autocast a method trains finitely with state as wide as ever; a skipped step moves nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tikhon.core.passes import Statistics

from .rows import METHODS, make, problem_of
from .training import STEPS_AN_EPOCH, Training, batches, differing, network, obeys, state_of

SCALE = 256.0


def dtypes(state: Any, at: str = "") -> dict[str, torch.dtype]:
    """The type of every tensor in a state, by its place."""
    if isinstance(state, Tensor):
        return {at: state.dtype}
    parts = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else ()
    return {place: kind for key, part in parts for place, kind in dtypes(part, f"{at}/{key}").items()}


def trained(name: str, cast: torch.dtype | None, overflows: list[bool]) -> dict[str, Any]:
    """The state after a loop with autocast and a gradient scaler, in which some steps overflow and are tried again."""
    training = Training.of(make(name))
    statistics = Statistics(training.model)  # which torch moves in every forward pass, whether or not a step follows
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=cast is torch.float16)
    for overflow in overflows:
        torch.manual_seed(training.done)
        ((index, inputs, labels),) = batches(training.done, training.done + 1, problem=training.problem)
        training.optimizer.zero_grad()
        statistics.keep()
        with torch.autocast("cpu", cast, enabled=cast is not None):
            loss = training.recipe.loss(inputs, labels, index=index)
        assert torch.isfinite(loss), f"the loss is {loss.item()} at step {training.done}"
        scaler.scale(loss).backward()
        if overflow:
            statistics.restore()
            next(one.grad for one in training.model.parameters() if one.grad is not None).fill_(torch.inf)
        scaler.step(training.optimizer)
        scaler.update(SCALE)  # as it was: another scale rounds gradients in half precision otherwise
        if not overflow:
            training.done += 1
            if training.done % STEPS_AN_EPOCH == 0:
                training.recipe.end_epoch()
    assert training.recipe.step == training.done
    state = state_of(training)
    assert state["recipe"].pop("skipped")["steps"] == sum(overflows)
    return state


@pytest.mark.environment("autocast")
@pytest.mark.parametrize("name", METHODS)
def test_autocast_trains_and_keeps_the_state_as_wide(name):
    obeys(name, "mixed precision")
    cast = trained(name, torch.bfloat16, 3 * [False])
    assert dtypes(cast) == dtypes(trained(name, None, 3 * [False]))
    assert all(value.isfinite().all() for value in cast["model"].values())


@pytest.mark.environment("GradScaler")
@pytest.mark.parametrize("name", METHODS)
def test_a_model_in_bfloat16_trains(name):
    obeys(name, "mixed precision")
    training = Training.of(make(name), model=network(dtype=torch.bfloat16, problem=problem_of(name))).until(3)
    for key, value in training.recipe.export().state_dict().items():
        assert value.isfinite().all(), key
        assert value.dtype == torch.bfloat16 or not value.is_floating_point(), key


@pytest.mark.parametrize("name", METHODS)
def test_a_skipped_step_leaves_nothing_behind(name):
    obeys(name, "mixed precision")
    bumpy = trained(name, torch.float16, [True, False, True, True, False, False])
    assert not differing(bumpy, trained(name, torch.float16, 3 * [False]))
