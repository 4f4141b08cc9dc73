"""Turned digits: labelled ones are upright, those of the test are turned and known in training without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tikhon.core.fit import fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.data import build_model, load_task
from tikhon.data.corruptions import rotate
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Run, Settings

ANGLE, EPOCHS = 40.0, 30
SETTING = (
    "digits, MLP 64-256-256-10, 30 epochs of Adam; 40 degrees between labelled and test digits; candidates chosen on "
    "turned validation digits"
)


def turned_digits(methods: Callable[[Settings, Tensor], Sequence[Method]]) -> Run:
    """Train on upright digits, with the training digits turned by 40 degrees at hand without their labels.

    methods: (settings, turned training digits) -> those of an arm; settings: learning_rate, of Adam. Measures: metric
    (accuracy on turned test digits), upright (on the test digits as they are), validation (on turned validation
    digits: all arms choose their candidate by a few labels of the target domain).
    """

    def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
        task = load_task("digits", seed=seed)
        trained, _ = fit(
            build_model("mlp", task, seed=seed),
            Recipe(*methods(settings, rotate(task.train.inputs, ANGLE)), seed=seed),
            (task.train.inputs, task.train.target),
            epochs=EPOCHS,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
            seed=seed,
            on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
        )
        trained.eval()
        with torch.no_grad():
            return {
                "metric": accuracy(trained(rotate(task.test.inputs, ANGLE)), task.test.target),
                "upright": accuracy(trained(task.test.inputs), task.test.target),
                "validation": accuracy(trained(rotate(task.validation.inputs, ANGLE)), task.validation.target),
            }

    return run
