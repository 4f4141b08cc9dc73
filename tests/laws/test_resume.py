"""Saved in the middle of an epoch and loaded in a new process, a training ends where the undisturbed one ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from .rows import METHODS, make
from .training import STEPS, Training, differing, obeys, state_of


def foreign(value, at=""):
    """Where a state holds something other than tensors and plain values."""
    if isinstance(value, dict):
        return [place for key in value for place in [*foreign(key, at), *foreign(value[key], f"{at}/{key}")]]
    if isinstance(value, (list, tuple)):
        return [place for one in value for place in foreign(one, at)]
    plain = type(value) in (int, float, str, bool, bytes, type(None)) or type(value) is Tensor
    return [] if plain else [f"{at}: {type(value).__name__}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(undisturbed ends, resumed ends, saved states) of all methods, in one new process."""
    folder = tmp_path_factory.mktemp("resume")
    saved, undisturbed = {}, {}
    for name in METHODS:
        torch.manual_seed(0)
        training = Training.of(make(name)).until(3)
        saved[name] = state_of(training) | {"random": torch.get_rng_state()}
        undisturbed[name] = state_of(training.until(STEPS))
    torch.save(saved, folder / "saved.pt")
    module = f"{__package__}.resumed"
    command = [sys.executable, "-m", module, str(folder / "saved.pt"), str(folder / "ended.pt")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return undisturbed, torch.load(folder / "ended.pt", weights_only=True), saved


@pytest.mark.environment("resume")
@pytest.mark.parametrize("name", METHODS)
def test_resumes_to_the_bit_in_a_new_process(name, runs):
    obeys(name, "resume")
    undisturbed, resumed, _ = runs
    assert undisturbed[name]["recipe"]["clock"]["number"] == STEPS
    assert not differing(resumed[name], undisturbed[name])


@pytest.mark.parametrize("name", METHODS)
def test_state_is_tensors_and_plain_values(name, runs):
    _, _, saved = runs
    assert not foreign(saved[name]["recipe"])
