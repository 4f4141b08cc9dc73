"""Semi-supervised: digits of which fifty have labels and all others none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tikhon.core.augmentations import noise, one_after_another, shift
from tikhon.core.errors import Diverged
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import build_model, load_task
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Run, Settings

PER_CLASS, BATCH, STEPS = 5, 25, 250
WEAK = shift(1)
STRONG = one_after_another(shift(2), noise(0.5))
VIEWS = {"weak": WEAK, "strong": STRONG}

Make = Callable[[Tensor, Mapping[str, Any]], list[Method]]
"""(inputs without labels, settings) -> the methods of the recipe."""


def semi_supervised(make: Make) -> Run:
    """Train an MLP on fifty labels; `make` says which methods see the inputs without labels.

    settings: learning_rate; view: how labelled inputs are distorted, "weak" or "strong"; and what `make` asks for.
    Measures: metric and validation (accuracy of the finished model).
    """

    def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
        task = load_task("digits", seed=seed)
        generator = torch.Generator().manual_seed(seed_for("labelled", seed))
        order = torch.randperm(len(task.train), generator=generator)
        kept = torch.cat([order[task.train.target[order] == label][:PER_CLASS] for label in range(10)])
        labelled = task.train[kept]
        recipe = Recipe(*make(task.train.inputs, settings), seed=seed)
        model = recipe.prepare(build_model("mlp", task, seed=seed))
        optimizer = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"], momentum=0.9)
        recipe.attach(optimizer, steps=STEPS)
        view = VIEWS[settings.get("view", "weak")]
        for step in range(STEPS):
            rows = torch.randperm(len(labelled), generator=generator)[:BATCH]
            optimizer.zero_grad()
            try:
                recipe.loss(view(labelled.inputs[rows], generator), labelled.target[rows]).backward()
            except Diverged:
                return {"validation": math.nan}
            optimizer.step()
            if step % 50 == 49:
                report((step + 1) / STEPS)
        finished = recipe.export().eval()
        with torch.no_grad():
            return {
                "metric": accuracy(finished(task.test.inputs), task.test.target),
                "validation": accuracy(finished(task.validation.inputs), task.validation.target),
            }

    return run
