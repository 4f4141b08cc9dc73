"""Do virtual outliers keep the heads of tasks that never met from claiming each other's classes?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, load_task
from tikhon.methods.continual.virtual_outlier import VirtualOutlierReg, energy, virtual_outliers
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

TASKS = [(first, first + 1) for first in range(0, 10, 2)]
EPOCHS, SECOND = 10, 10  # of each task: with the plain loss, and with the penalty where there is one
FEATURES = 256
NEIGHBOURS, EDGE, OFFSETS, PER_CLASS, SPREAD = 10, 50, 100, 100, 0.1


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Learn five pairs of digits one after another on frozen features; at the end all ten outputs compete.

    Measures: metric (test accuracy over all classes), within (accuracy where the task is known), energy_gap (mean
    energy of fresh outliers of the last task over that of its test samples, in its outputs), validation (as metric, on
    the validation split).
    """
    task = load_task("digits", seed=seed)
    train, validation, test = _features(task.train, task.validation, task.test, seed=seed)
    part = [0, 1]
    methods = [_penalty(*settings["margins"])] if settings["margins"] else []
    recipe = Recipe(*methods, seed=seed, output=lambda scores: scores[:, part])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = recipe.prepare(nn.Sequential(nn.Linear(FEATURES, 10)))
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"], momentum=0.9)
    recipe.attach(optimizer)
    for number, classes in enumerate(TASKS):
        part[:] = classes
        own = _only(train, classes)
        for epoch in range(EPOCHS + SECOND):
            if epoch == EPOCHS:
                recipe.end_task([(own.inputs, own.target)])
            generator = torch.Generator().manual_seed(1000 * seed + 100 * number + epoch)
            for rows in torch.randperm(len(own), generator=generator).split(32):
                optimizer.zero_grad()
                recipe.loss(own.inputs[rows], own.target[rows]).backward()
                optimizer.step()
        recipe.end_task()
        report((number + 1) / len(TASKS))
    generator = torch.Generator().manual_seed(seed_for("fresh", seed))
    offsets = SPREAD * torch.randn(OFFSETS, FEATURES, generator=generator)
    outliers = virtual_outliers(own.inputs, offsets, PER_CLASS, NEIGHBOURS, EDGE)
    with torch.no_grad():
        return {
            "metric": accuracy(model(test.inputs), test.target),
            "within": sum(_within(model, _only(test, classes), classes) for classes in TASKS) / len(TASKS),
            "energy_gap": float(
                energy(model(outliers)[:, part]).mean() - energy(model(_only(test, TASKS[-1]).inputs)[:, part]).mean()
            ),
            "validation": accuracy(model(validation.inputs), validation.target),
        }


def _penalty(inner: float, outer: float) -> VirtualOutlierReg:
    return VirtualOutlierReg(
        0.1, inner, outer, NEIGHBOURS, edge=EDGE, offsets=OFFSETS, per_class=PER_CLASS, spread=SPREAD
    )


def _features(*splits: Split, seed: int) -> list[Split]:
    """Random ReLU features, the same for all splits, of length 1."""
    generator = torch.Generator().manual_seed(seed_for("features", seed))
    pixels = splits[0].inputs[0].numel()
    weight = torch.randn(FEATURES, pixels, generator=generator) / pixels**0.5
    mean = splits[0].inputs.flatten(1).mean(0)

    def of(split: Split) -> Split:
        features: Tensor = ((split.inputs.flatten(1) - mean) @ weight.T).relu()
        return Split(nn.functional.normalize(features), split.target)

    return [of(split) for split in splits]


def _only(split: Split, classes: tuple[int, int]) -> Split:
    """The samples of two classes, labelled 0 and 1."""
    kept = (split.target == classes[0]) | (split.target == classes[1])
    return Split(split.inputs[kept], split.target[kept] - classes[0])


def _within(model: nn.Module, split: Split, classes: tuple[int, int]) -> float:
    return accuracy(model(split.inputs)[:, list(classes)], split.target)


study = Study(
    question="Where all outputs compete after five tasks, is accuracy with virtual outliers 3 points above that of the "
    "plain loss, and is the energy of outliers further above that of samples?",
    setting="digits in five tasks of two classes, 256 frozen random ReLU features, linear heads, 20 epochs a task",
    run=run,
    arms={
        "none": [{"margins": None, "learning_rate": rate} for rate in (0.05, 0.2, 0.5, 1.0)],
        "virtual_outlier": [
            {"margins": margins, "learning_rate": 0.5}
            for margins in ((-3.0, -1.0), (-5.0, -1.0), (-5.0, -2.0), (-8.0, -2.0))
        ],
    },
    expectations=[
        Expectation("virtual_outlier", "none", margin=0.03),
        Expectation("virtual_outlier", "none", "energy_gap"),
    ],
)
