"""Two processes with sharded parameters (FSDP2) train what one process trains on the whole batch.

Here are the methods that do. Those that perturb weights for a second pass, project single gradients, look at whole
weight matrices or add parameters outside of the modules' forward do not work on shards yet: they fail in their first
step.
"""

from __future__ import annotations

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from laws.rows import make, problem_of
from laws.training import BATCH, EPOCHS, SAMPLES, STEPS, STEPS_AN_EPOCH, batches, network, sgd
from tikhon import Recipe

from .processes import WORLD, together
from .test_ddp import ALIKE, train

SHARDED = [
    *("bang", "elastic_net", "elr", "ema", "f_dpo", "flex_dpo", "intertwined", "l1", "l2", "l2_anchor"),
    *("label_smoothing", "mapo", "pissa", "ps_kd", "repa", "solver_reg", "stablemax", "weight_compander"),
]


def sharded(rank: int, names: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    return {name: _trained(rank, name) for name in names}


def _trained(rank: int, name: str) -> dict[str, torch.Tensor]:
    problem = problem_of(name)
    recipe = Recipe(make(name), base=problem.base, output=problem.output, seed=5)
    model = recipe.prepare(network(norm=False, dtype=torch.float64, problem=problem), samples=SAMPLES)
    fully_shard(model)
    optimizer = sgd(model.parameters())
    recipe.attach(optimizer, model=model, steps=STEPS, epochs=EPOCHS)
    problem.begin(recipe)
    mine = torch.arange(BATCH).split(BATCH // WORLD)[rank]
    for step, (index, inputs, labels) in enumerate(batches(0, STEPS, torch.float64, problem)):
        optimizer.zero_grad()
        recipe.loss(inputs[mine], labels[mine], index=index[mine]).backward()
        optimizer.step()
        if (step + 1) % STEPS_AN_EPOCH == 0:
            recipe.end_epoch()
    return {key: value.detach().full_tensor() for key, value in model.named_parameters()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return together(sharded, tmp_path_factory.mktemp("fsdp"), SHARDED)


def test_all_of_them_are_methods_of_which_equality_can_be_asked() -> None:
    assert set(SHARDED) <= set(ALIKE)


@pytest.mark.parametrize("name", SHARDED)
def test_shards_are_the_weights_of_one_process(trained, name) -> None:
    first, second = (result[name] for result in trained)
    for key, value in train(0, name, 1)["weights"].items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: key)
