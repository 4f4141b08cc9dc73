"""Split digits: five pairs of classes, learned one after another by one network. What is left of the first?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import Diverged
from tikhon.core.recipe import Recipe
from tikhon.data import Split, build_model, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Settings

TASKS = [(first, first + 1) for first in range(0, 10, 2)]
EPOCHS = 10
BODY = ("1.*", "3.*")
"""The hidden layers: rows of the head belong to one task each."""


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Learn the tasks, each with two outputs of its own; with `compete` in the settings all ten outputs compete.

    Measures: metric (mean test accuracy over tasks at the end), forgetting (mean fall since a task was learned),
    learned (mean accuracy right after learning), validation (as metric, on the validation split; NaN where the training
    diverged).
    """
    task = load_task("digits", seed=seed)
    compete = settings.get("compete", False)
    part = [0, 1]

    def own_outputs(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output[:, part], target - part[0], reduction="none")

    base: Any = F.cross_entropy if compete else own_outputs
    recipe = Recipe(*parse_arm(settings["recipe"]).methods(), base=base, seed=seed)
    model = recipe.prepare(build_model("mlp", task, seed=seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.get("learning_rate", 0.1), momentum=0.9)
    recipe.attach(optimizer)
    learned = []
    for number, classes in enumerate(TASKS):
        part[:] = classes
        train = only(task.train, classes)
        for epoch in range(EPOCHS):
            generator = torch.Generator().manual_seed(1000 * seed + 10 * number + epoch)
            for rows in torch.randperm(len(train.target), generator=generator).split(32):
                optimizer.zero_grad()
                try:
                    recipe.loss(train.inputs[rows], train.target[rows]).backward()
                except Diverged:
                    return {"validation": math.nan}
                optimizer.step()
        recipe.end_task([(train.inputs, train.target)])
        learned.append(_score(model, task.test, classes, compete))
        report((number + 1) / len(TASKS))
    final = [_score(model, task.test, classes, compete) for classes in TASKS]
    validation = [_score(model, task.validation, classes, compete) for classes in TASKS]
    return {
        "metric": sum(final) / len(TASKS),
        "learned": sum(learned) / len(TASKS),
        "forgetting": sum(before - after for before, after in zip(learned[:-1], final[:-1], strict=True)) / 4,
        "validation": sum(validation) / len(TASKS),
    }


def only(split: Split, classes: tuple[int, int]) -> Split:
    """The samples of two classes."""
    return split[((split.target == classes[0]) | (split.target == classes[1])).nonzero()[:, 0]]


@torch.no_grad()
def _score(model: nn.Module, split: Split, classes: tuple[int, int], compete: bool) -> float:
    part = only(split, classes)
    output: Tensor = model(part.inputs)
    if compete:
        return accuracy(output, part.target)
    return accuracy(output[:, list(classes)], part.target - classes[0])
