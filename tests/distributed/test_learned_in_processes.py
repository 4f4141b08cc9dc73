"""Learned strengths in two processes: equal in both, and what one process learns from the whole batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from laws.training import BATCH, EPOCHS, SAMPLES, STEPS, batches, network, sgd
from tikhon import ELR, L2, LabelSmoothing, Learned, Recipe, TikhonError
from tikhon.core.shards import whole

from .processes import WORLD, together


def train(rank: int, world: int) -> dict[str, Any]:
    """Five steps, tuned at every second, of which each process has its share of training and validation batches."""
    methods = ELR(Learned(1.0, 0.1, 9.0)), L2(Learned(1e-2, 1e-4, 0.9)), LabelSmoothing(Learned(0.1, 0.01, 0.5))
    recipe = Recipe(*methods, seed=5)
    share = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    held_out = [(x[share] + 1.0, y[share]) for _, x, y in batches(5, 6, torch.float64)]
    recipe.tune(held_out, every=2)
    model = recipe.prepare(network(norm=False, dtype=torch.float64), samples=SAMPLES)
    optimizer = sgd(model.parameters())
    recipe.attach(optimizer, model=DistributedDataParallel(model) if world > 1 else model, steps=STEPS, epochs=EPOCHS)
    for index, x, y in batches(0, 5, torch.float64):
        optimizer.zero_grad()
        recipe.loss(x[share], y[share], index=index[share]).backward()
        optimizer.step()
    weights = {key: value.detach() for key, value in model.named_parameters()}
    return {"weights": weights, "strengths": recipe.state_dict()["tuning"]["strengths"]}


def both(rank: int) -> dict[str, Any]:
    return train(rank, WORLD)


def test_two_processes_learn_what_one_learns(tmp_path: Any) -> None:
    first, second = together(both, tmp_path)
    assert first["strengths"] == second["strengths"]
    alone = train(0, 1)
    for name, value in alone["strengths"].items():
        assert first["strengths"][name] == pytest.approx(value, rel=1e-5)
        assert value not in (1.0, 1e-2, 0.1)
    for key, value in alone["weights"].items():
        assert torch.equal(first["weights"][key], second["weights"][key])
        torch.testing.assert_close(whole(first["weights"][key]), value, rtol=1e-5, atol=1e-7)


def sharded(rank: int) -> str:
    from torch.distributed.fsdp import fully_shard

    recipe = Recipe(L2(Learned(1e-2, 1e-4, 0.9)))
    model = fully_shard(recipe.prepare(network(norm=False)))
    try:
        recipe.attach(sgd(model.parameters()), model=model)
    except TikhonError as error:
        return str(error)
    return "attached"


def test_sharded_parameters_are_refused(tmp_path: Any) -> None:
    for said in together(sharded, tmp_path):
        assert "l2 has a Learned strength" in said
