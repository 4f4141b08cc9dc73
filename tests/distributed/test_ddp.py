"""Two processes under DistributedDataParallel train what one process trains on the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from laws.rows import METHODS, ROWS, Row, make, problem_of
from laws.training import BATCH, EPOCHS, SAMPLES, STEPS, STEPS_AN_EPOCH, batches, differing, network, sgd
from tikhon import ELR, EMA, L2, MixUp, Recipe
from tikhon.core.catalogue import methods
from tikhon.core.shards import whole

from .processes import WORLD, together

SCALE = 256.0
MEANS_DIFFER = {"data_diet": "each process takes the mean over the samples that it kept of its share"}
UNUSED = {"stochastic_depth": "the blocks that a process leaves out get no gradient there"}
ALIKE = [name for name in METHODS if "accumulation" not in methods()[name].load().exempt and name not in MEANS_DIFFER]


def train(
    rank: int,
    name: str,
    world: int,
    sizes: tuple[int, ...] | None = None,
    wrapped: Callable[[nn.Module], nn.Module] = DistributedDataParallel,
    norm: bool | None = None,
) -> dict[str, object]:
    """The laws' small training; each process has its share of every batch, of unequal sizes with `total=`."""
    torch.manual_seed(rank)
    problem = problem_of(name)
    recipe = Recipe(make(name), base=problem.base, output=problem.output, seed=5)
    norm = name not in ALIKE if norm is None else norm
    model = recipe.prepare(network(norm=norm, dtype=torch.float64, problem=problem), samples=SAMPLES)
    settings = {"find_unused_parameters": True} if name in UNUSED and wrapped is DistributedDataParallel else {}
    called = wrapped(model, **settings) if world > 1 else model
    optimizer = sgd(model.parameters())
    recipe.attach(optimizer, model=called, steps=STEPS, epochs=EPOCHS)
    ROWS.get(name, Row()).begin(recipe)
    shares = torch.arange(BATCH).split(list(sizes or [BATCH // world] * world))
    for step, (index, inputs, labels) in enumerate(batches(0, STEPS, torch.float64, problem)):
        optimizer.zero_grad()
        mine = shares[rank]
        total = float(BATCH) if sizes else None
        recipe.loss(inputs[mine], labels[mine], index=index[mine], total=total).backward()
        optimizer.step()
        if (step + 1) % STEPS_AN_EPOCH == 0:
            recipe.end_epoch()
    state = recipe.state_dict()
    weights = {key: whole(value.detach()) for key, value in model.named_parameters()}
    return copy.deepcopy({"weights": weights, "memories": tables(state["methods"])})


def tables(state: object) -> list[torch.Tensor]:
    """Every table of a per-sample memory in a state."""
    if not isinstance(state, dict):
        return []
    found = [state["table"]] if isinstance(state.get("table"), torch.Tensor) else []
    return found + [table for value in state.values() for table in tables(value)]


def every(rank: int, names: list[str], sizes: tuple[int, ...] | None) -> dict[str, object]:
    return {name: attempted(rank, name, sizes) for name in names}


def attempted(rank: int, name: str, sizes: tuple[int, ...] | None, **how: Any) -> object:
    try:
        return train(rank, name, WORLD, sizes, **how)
    except Exception as error:  # reported by the test of this method
        if distributed.is_initialized():
            distributed.barrier()
        return f"{type(error).__name__}: {error}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All methods in two processes: starting these takes longer than the training."""
    return together(every, tmp_path_factory.mktemp("ddp"), METHODS, None)


@pytest.fixture(scope="module")
def trained_unequally(tmp_path_factory):
    return together(every, tmp_path_factory.mktemp("ddp"), ALIKE, (5, 11))


@pytest.mark.environment("DDP")
@pytest.mark.parametrize("name", METHODS)
def test_both_processes_have_the_same_weights(trained, name) -> None:
    first, second = (result[name] for result in trained)
    assert not isinstance(first, str), first
    for key, value in first["weights"].items():
        assert value.isfinite().all(), key
        torch.testing.assert_close(value, second["weights"][key], rtol=0.0, atol=0.0, msg=lambda text, key=key: key)
    for one, other in zip(first["memories"], second["memories"], strict=True):
        assert torch.equal(one, other)


@pytest.mark.environment("DDP")
@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_are_one_with_the_whole_batch(trained, name) -> None:
    found, expected = trained[0][name], train(0, name, 1)
    for key, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][key], value, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: key)
    for one, other in zip(found["memories"], expected["memories"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ALIKE)
def test_shares_of_unequal_size_add_up_with_their_total(trained_unequally, name) -> None:
    found, expected = trained_unequally[1][name], train(0, name, 1)
    assert not isinstance(found, str), found
    for key, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][key], value, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: key)


def scaled(rank: int, *runs: list[bool]) -> list[dict[str, object]]:
    return [_scaled(rank, overflows) for overflows in runs]


def _scaled(rank: int, overflows: list[bool]) -> dict[str, object]:
    """Steps in float16 with a gradient scaler, of which some overflow in one process alone."""
    recipe = Recipe(ELR(), MixUp(), EMA(0.5), L2(1e-3), seed=5)
    model = recipe.prepare(network(), samples=SAMPLES)
    called = DistributedDataParallel(model)
    optimizer = sgd(model.parameters())
    recipe.attach(optimizer, model=called, steps=STEPS, epochs=EPOCHS)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    done = 0
    for overflow in overflows:
        ((index, inputs, labels),) = batches(done, done + 1)
        mine = slice(rank * BATCH // WORLD, (rank + 1) * BATCH // WORLD)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = recipe.loss(inputs[mine], labels[mine], index=index[mine])
        scaler.scale(loss * torch.inf if overflow and rank == 0 else loss).backward()
        scaler.step(optimizer)
        scaler.update(SCALE)
        done += not overflow
    assert recipe.step == done
    weights = {key: value.detach() for key, value in model.named_parameters()}
    return copy.deepcopy({"weights": weights, "methods": recipe.state_dict()["methods"]})


def test_a_step_that_a_scaler_skips_moves_nothing_in_any_process(tmp_path) -> None:
    for bumpy, smooth in together(scaled, tmp_path, [True, False, True, True, False, False], [False, False, False]):
        assert not differing(bumpy, smooth)
