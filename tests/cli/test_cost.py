"""`tikhon cost`. What is asserted of times is only that they are there."""

import json
from typing import Any

import pytest
import torch
from commands import refused, run

from tikhon.studies.references import REFERENCES


def measured(*words: str) -> Any:
    return json.loads(run("cost", "--repetitions", "2", *words, "--json").stdout)


def test_the_hand_written_loop_comes_first_and_the_empty_recipe_second() -> None:
    rows = measured("--methods", "elr+mixup,ema")["methods"]
    assert [row["name"] for row in rows] == ["plain loop", "none", "elr+mixup", "ema"]
    assert all(row["microseconds"] > 0 and row["ratio_low"] <= row["ratio_high"] for row in rows)


def test_memory_is_that_of_the_tensors() -> None:
    rows = {row["name"]: row["bytes"] for row in measured("--methods", "ema")["methods"]}
    assert rows["none"] == rows["plain loop"], "an empty recipe holds nothing"
    weights = 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert rows["ema"] - rows["none"] >= 4 * weights, "an average is a copy of the weights"
    # Weights, momentum and gradients of float32 are the least that a step of SGD with momentum can hold.
    assert rows["plain loop"] >= 3 * 4 * weights


def test_the_table_fits_80_columns_and_says_what_the_engine_costs() -> None:
    said = run("cost", "--repetitions", "2", "--methods", "none,multi_sample_dropout").stdout
    assert max(map(len, said.splitlines())) <= 80
    assert "plain loop" in said
    assert "The engine itself" in said


def test_all_is_every_method_and_what_cannot_run_is_listed_with_the_reason() -> None:
    found = measured("--data", "diabetes", "--batch-size", "16")
    names = {row["name"] for row in found["methods"]}
    assert {"l2", "mixup", "sam"} <= names
    assert "class scores" in found["refused"]["elr"]
    assert not names & set(found["refused"])
    said = run("cost", "--repetitions", "2", "--methods", "orth_conv").stdout
    assert "These cannot run with this model and data:\n  orth_conv: " in said


def test_a_step_is_held_against_its_declared_passes() -> None:
    rows = {
        row["name"]: row for row in measured("--methods", "sam,clip_grad_norm,elr+mixup,sam(radius=0.1)")["methods"]
    }
    assert rows["plain loop"]["passes_ratio"] == rows["plain loop"]["ratio"] == 1.0
    assert rows["sam"]["passes_ratio"] < rows["sam"]["ratio"], "a second pass is declared"
    assert rows["elr+mixup"]["passes_ratio"] is None
    assert rows["sam(radius=0.1)"]["passes_ratio"] is None, "only the example's arguments have declared passes"


@pytest.mark.parametrize("model", ["resnet20", "transformer", "ode"])
def test_reference_models_bring_their_data(model: str) -> None:
    found = measured("--model", model, "--batch-size", "4", "--methods", "mixup,orth_conv")
    assert found["data"] == REFERENCES[model].data
    assert {row["name"] for row in found["methods"]} | set(found["refused"]) == {
        "plain loop",
        "none",
        "mixup",
        "orth_conv",
    }


def test_a_recipe_that_diverges_after_its_first_steps_is_listed_and_the_others_are_measured() -> None:
    found = measured("--model", "resnet20", "--batch-size", "4", "--methods", "ibp(eps=0.1),mixup")
    assert [row["name"] for row in found["methods"]] == ["plain loop", "none", "mixup"]
    assert "The loss is nan at step" in found["refused"]["ibp(eps=0.1)"]
    assert "at step 0" not in found["refused"]["ibp(eps=0.1)"]


def test_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measured("--methods", "none")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_wrong_input_is_named() -> None:
    assert "Did you mean 'elr'?" in refused("cost", "--methods", "elrr")
    assert "Known: cnn, mlp, module:function, ode, resnet20, transformer" in refused("cost", "--model", "vgg")
    assert "at least 1" in refused("cost", "--batch-size", "0")
    assert "samples for training" in refused("cost", "--batch-size", "100000")
    assert "at least 1" in refused("cost", "--repetitions", "0")
