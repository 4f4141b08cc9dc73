"""Adaptation to a rotation: a network pretrained on upright digits learns rotated ones from a few samples."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import build_model, load_task
from tikhon.data.corruptions import rotate
from tikhon.data.splits import draw
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Settings

SHOTS, ANGLE = 10, 40.0
PRETRAINING, EPOCHS = 30, 60
SETTING = (
    "digits, MLP 64-256-256-10 pretrained on upright ones, ten samples a class rotated by 40 degrees, 60 epochs of "
    "Adam with early stopping"
)


class Adapted(NamedTuple):
    """The network before and after, and metric and validation (accuracy on rotated digits) and kept (on upright ones)
    afterwards."""

    before: nn.Module
    after: nn.Module
    measures: dict[str, float]


def adapt(settings: Settings, seed: int, report: Report) -> Adapted:
    """Pretrain, then adapt with the arm `settings["recipe"]` at `settings["learning_rate"]`."""
    task = load_task("digits", seed=seed)
    model, _ = fit(
        build_model("mlp", task, seed=seed),
        Recipe(seed=seed),
        (task.train.inputs, task.train.target),
        epochs=PRETRAINING,
        seed=seed,
    )
    before = copy.deepcopy(model)
    rows, _ = draw(task.train.target, 10 * SHOTS, torch.Generator().manual_seed(seed_for("shots", seed)))
    validation, test = (rotate(split.inputs, ANGLE) for split in (task.validation, task.test))
    arm = parse_arm(settings["recipe"])
    after, _ = fit(
        model,
        Recipe(*arm.methods(), seed=seed),
        (rotate(task.train.inputs[rows], ANGLE), task.train.target[rows]),
        epochs=EPOCHS,
        batch_size=32,
        optimizer=lambda parameters: torch.optim.Adam(
            [one for one in parameters if one.requires_grad], lr=settings["learning_rate"]
        ),
        metrics={"validation": lambda model: accuracy(model(validation), task.validation.target)},
        keep_best="validation" if arm.early_stopping else None,
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    after.eval()
    with torch.no_grad():
        measures = {
            "metric": accuracy(after(test), task.test.target),
            "kept": accuracy(after(task.test.inputs), task.test.target),
            "validation": accuracy(after(validation), task.validation.target),
        }
    return Adapted(before, after, measures)


def rates(recipe: str, *values: float) -> list[Settings]:
    """Candidates that differ in the learning rate."""
    return [{"recipe": f"{recipe}+early_stopping", "learning_rate": rate} for rate in values]
