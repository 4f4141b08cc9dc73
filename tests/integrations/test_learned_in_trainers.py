"""Learned strengths in every framework: its own tests of weights and of resuming, with such a recipe."""

from __future__ import annotations

import pytest
import torch

import tikhon

from . import common, test_accelerate, test_lightning, test_transformers

pytestmark = pytest.mark.filterwarnings("ignore")


def learned(**places) -> tikhon.Recipe:
    """Strengths of a memory, of a penalty and of a target, tuned at every other step, beside a second pass."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(48, 5, generator=generator)
    keys = ("x", "labels")
    held_out = [(one, one[:, :3].argmax(1)) for one in x.split(16)]
    recipe = tikhon.Recipe(
        tikhon.ELR(tikhon.Learned(1.0, 0.1, 9.0)),
        tikhon.L2(tikhon.Learned(1e-3, 1e-5, 1e-1)),
        tikhon.LabelSmoothing(tikhon.Learned(0.1, 0.01, 0.5)),
        tikhon.MixUp(),
        tikhon.SAM(),
        seed=4,
        **places,
    )
    return recipe.tune([dict(zip(keys, pair, strict=True)) for pair in held_out] if places else held_out, every=2)


@pytest.fixture(autouse=True)
def _learned(monkeypatch):
    for module in (common, test_accelerate, test_lightning, test_transformers):
        monkeypatch.setattr(module, "recipe", learned)


def test_they_move() -> None:
    mine, _ = common.plainly()
    assert mine.log()["elr/strength"] != 1.0
    assert mine.log()["l2/strength"] != 1e-3
    assert mine.log()["label_smoothing/strength"] != 0.1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_has_the_weights_of_the_plain_loop_and_resumes(accumulate, tmp_path) -> None:
    test_lightning.test_the_weights_of_the_plain_loop(tmp_path / "whole", accumulate)
    test_lightning.test_a_resumed_run_has_the_weights_of_an_undisturbed_one(tmp_path / "resumed", accumulate)


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
def test_mixed_precision(cast, tmp_path) -> None:
    test_lightning.test_mixed_precision_has_the_weights_of_the_plain_loop(tmp_path, cast, 1)


def test_trainer_has_the_weights_of_the_plain_loop_and_resumes(tmp_path) -> None:
    test_transformers.test_the_weights_of_the_plain_loop(tmp_path / "whole", 2)
    test_transformers.test_a_resumed_run_has_the_weights_of_an_undisturbed_one(tmp_path / "resumed")


def test_accelerate_has_the_weights_of_the_plain_loop() -> None:
    test_accelerate.test_the_weights_of_the_plain_loop(2)


def test_compiled(tmp_path) -> None:
    common.graphs()
    mine = learned()
    module = test_lightning.Module(mine)
    module.net = torch.compile(module.net, backend="eager", fullgraph=True)
    callback = test_lightning.RecipeCallback(mine, at="net", samples=common.SAMPLES)
    test_lightning.trainer(tmp_path, callback).fit(module, common.loader())
    expected, model = common.plainly()
    common.same(module.net, model)
    assert mine.log() == expected.log()
