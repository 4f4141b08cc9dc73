"""The new process of the resume law: load every training that was saved, train on, save where it ended.

Run as `python -m laws.resumed SAVED ENDED`.
"""

from __future__ import annotations

import sys

import torch

from .rows import make
from .training import STEPS, Training, state_of


def resume(saved: str, ended: str) -> None:
    results = {}
    for name, state in torch.load(saved, weights_only=True).items():
        training = Training.of(make(name))
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.recipe.load_state_dict(state["recipe"])
        torch.set_rng_state(state["random"])
        training.done = training.recipe.step
        results[name] = state_of(training.until(STEPS))
    torch.save(results, ended)


if __name__ == "__main__":
    resume(sys.argv[1], sys.argv[2])
