"""The same seed gives the same weights, and global generators neither matter nor move."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from .rows import METHODS, make
from .training import STEPS, Training, differing, obeys, state_of


@pytest.mark.environment("plain loop")
@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_weights(name):
    torch.manual_seed(0)
    first = state_of(Training.of(make(name)).until(STEPS))
    torch.manual_seed(0)
    assert not differing(first, state_of(Training.of(make(name)).until(STEPS)))


def global_state():
    name, keys, position, *_ = np.random.get_state()  # noqa: NPY002 - the global generator is what must not move
    return torch.get_rng_state(), {"numpy": (name, keys.tolist(), position), "python": random.getstate()}


@pytest.mark.parametrize("name", METHODS)
def test_global_generators_neither_matter_nor_move(name):
    obeys(name, "reproducible")

    def others_draw():
        torch.rand(3)
        random.random()
        np.random.rand()  # noqa: NPY002

    torch.manual_seed(0)
    before = global_state()
    undisturbed = state_of(Training.of(make(name)).until(STEPS))
    assert not differing(global_state(), before), f"{name} draws from a global generator"
    torch.manual_seed(99)
    assert not differing(state_of(Training.of(make(name)).until(STEPS, others_draw)), undisturbed)
