"""Two processes with sharded parameters (FSDP2) train what two with whole parameters do, or `attach` says why not."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import ProcessExitedException

from laws.rows import METHODS, make
from laws.training import STEPS, Net, Training, data, network, obeys
from tikhon.core.catalogue import methods
from tikhon.core.shards import holds_shards, whole

from .processes import WORLD, together
from .test_ddp import attempted, train

REFUSED = [name for name in METHODS if "shards" in methods()[name].load().exempt]
WHOLE_BATCH = [name for name in METHODS if "around" in vars(methods()[name].load())]
"""Methods that under DistributedDataParallel look at one process's share of the batch, and on shards at all of it."""


def sharded(model: nn.Module) -> nn.Module:
    """Three layers by themselves, whose weights are shards again between the passes, and the rest with the model."""
    for layer in (model.second, model.hidden, model.head, model):
        fully_shard(layer)
    return model


def every(rank: int, names: list[str], folder: Path) -> None:
    for name in names:
        plain = attempted(rank, name, None)
        found = attempted(rank, name, None, wrapped=sharded, norm=False if name in WHOLE_BATCH else None)
        torch.save((plain, found), folder / f"{name}{rank}.pt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, list[Any]]:
    """All methods on whole and on sharded parameters: starting processes takes longer than the training.

    A method that reads parameters whose memory the sharding has freed can take its process with it: then the others go
    on in new ones.
    """
    folder, results, waiting = tmp_path_factory.mktemp("fsdp"), {}, METHODS
    while waiting:
        try:
            together(every, folder, waiting, folder)
        except ProcessExitedException as error:
            crash: Any = ("", f"its process died: {error}")
        for name in waiting:
            files = [folder / f"{name}{rank}.pt" for rank in range(WORLD)]
            finished = all(file.exists() for file in files)
            results[name] = [torch.load(file, weights_only=True) for file in files] if finished else [crash] * WORLD
            if not finished:
                break
        waiting = waiting[waiting.index(name) + 1 :]
    return results


@pytest.mark.environment("FSDP2")
@pytest.mark.parametrize("name", METHODS)
def test_shards_are_the_weights_of_whole_parameters(trained, name) -> None:
    obeys(name, "shards")
    (plain, first), (_, second) = trained[name]
    assert not isinstance(first, str), (
        f"{name} fails on sharded parameters ({first}). Mend it, or say in its exempt['shards'] why it cannot work "
        "there: then attach refuses it."
    )
    expected = train(0, name, 1, norm=False)["weights"] if name in WHOLE_BATCH else plain["weights"]
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key
        torch.testing.assert_close(
            value, expected[key], rtol=1e-7, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", REFUSED)
def test_attach_refuses_what_cannot_work_on_shards(trained, name) -> None:
    for _, found in trained[name]:
        assert "TikhonError" in found
        assert methods()[name].load().exempt["shards"] in found


STATEFUL = ["bang", "ema", "l2", "l2_anchor", "pissa", "sam", "sara", "weight_compander"]


def saved_and_exported(rank: int) -> dict[str, dict[str, Any]]:
    return {name: _saved_and_exported(name) for name in STATEFUL}


def _saved_and_exported(name: str) -> dict[str, Any]:
    """Where a training ends that was saved half-way and goes on from there, and what its export is."""
    training = Training.of(make(name), model=network(norm=False), compiled=sharded).until(3)
    file = io.BytesIO()
    torch.save([training.model.state_dict(), training.optimizer.state_dict(), training.recipe.state_dict()], file)
    ended = [whole(leaf.detach()) for leaf in training.until(STEPS).model.parameters()]
    file.seek(0)
    states = torch.load(file, weights_only=True)
    again = Training.of(make(name), model=network(norm=False), compiled=sharded)
    for one, state in zip((again.model, again.optimizer, again.recipe), states, strict=True):
        one.load_state_dict(state)
    again.done = 3
    resumed = [whole(leaf.detach()) for leaf in again.until(STEPS).model.parameters()]
    inputs = data()[0]
    with again.recipe.deployed() as deployed, torch.no_grad():
        outputs = deployed.eval()(inputs)
    exported = again.recipe.export()
    torch.save(exported, io.BytesIO())  # which a hook or class that was left would hinder
    plain = type(exported) is Net and all(type(leaf) is nn.Parameter for leaf in exported.parameters())
    with torch.no_grad():
        found = copy.deepcopy(exported).eval()(inputs)
    return {"ended": ended, "resumed": resumed, "deployed": outputs, "exported": found, "plain": plain}


@pytest.fixture(scope="module")
def continued(tmp_path_factory) -> list[Any]:
    return together(saved_and_exported, tmp_path_factory.mktemp("continued"))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_saved_training_resumes_to_the_bit(continued, name) -> None:
    for result in continued:
        assert result[name]["ended"]
        for one, other in zip(result[name]["ended"], result[name]["resumed"], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", STATEFUL)
def test_export_is_an_ordinary_module_with_the_outputs_of_the_deployed_one(continued, name) -> None:
    for result in continued:
        assert result[name]["plain"]
        torch.testing.assert_close(result[name]["exported"], result[name]["deployed"])


def seen_by_penalties(rank: int) -> dict[str, bool]:
    """Whether a penalty saw parts of the parameters."""
    seen = {}
    for name in ("l2", "orth_conv"):
        training = Training.of(make(name), model=network(norm=False), compiled=sharded)
        method = training.recipe.methods[name]

        def watched(model, step, name=name, penalties=method.parameter_terms):
            seen[name] = holds_shards(model)
            return penalties(model, step)

        method.parameter_terms = watched
        training.until(1)
    return seen


def test_a_method_that_is_elementwise_acts_on_parts_and_others_on_the_whole(tmp_path) -> None:
    assert together(seen_by_penalties, tmp_path) == [{"l2": True, "orth_conv": False}] * WORLD
