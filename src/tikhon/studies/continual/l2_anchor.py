"""Does an anchor at the weights of earlier tasks keep a network from forgetting them?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.recipe import Recipe
from tikhon.data import Split, build_model, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study, plain

TASKS = [(first, first + 1) for first in range(0, 10, 2)]
EPOCHS = 10
BODY = ("1.*", "3.*")  # the hidden layers: rows of the head belong to one task each


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Learn five pairs of digits one after another, each with its own two outputs of the head.

    Measures: metric (mean test accuracy over tasks at the end), forgetting (mean fall since a task was learned),
    learned (mean accuracy right after learning), validation (as metric, on the validation split).
    """
    task = load_task("digits", seed=seed)
    part = [0, 1]
    recipe = Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed, output=lambda output: output[:, part])
    model = recipe.prepare(build_model("mlp", task, seed=seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.get("learning_rate", 0.1), momentum=0.9)
    recipe.attach(optimizer)
    learned = []
    for number, classes in enumerate(TASKS):
        part[:] = classes
        train = _only(task.train, classes)
        for epoch in range(EPOCHS):
            generator = torch.Generator().manual_seed(1000 * seed + 10 * number + epoch)
            for rows in torch.randperm(len(train.target), generator=generator).split(32):
                optimizer.zero_grad()
                recipe.loss(train.inputs[rows], train.target[rows]).backward()
                optimizer.step()
        recipe.end_task([(train.inputs, train.target)])
        learned.append(_score(model, task.test, classes))
        report((number + 1) / len(TASKS))
    final = [_score(model, task.test, classes) for classes in TASKS]
    validation = [_score(model, task.validation, classes) for classes in TASKS]
    return {
        "metric": sum(final) / len(TASKS),
        "learned": sum(learned) / len(TASKS),
        "forgetting": sum(before - after for before, after in zip(learned[:-1], final[:-1], strict=True)) / 4,
        "validation": sum(validation) / len(TASKS),
    }


def _only(split: Split, classes: tuple[int, int]) -> Split:
    """The samples of two classes, labelled 0 and 1."""
    kept = (split.target == classes[0]) | (split.target == classes[1])
    return Split(split.inputs[kept], split.target[kept] - classes[0])


@torch.no_grad()
def _score(model: nn.Module, split: Split, classes: tuple[int, int]) -> float:
    part = _only(split, classes)
    output: Tensor = model(part.inputs)
    return accuracy(output[:, list(classes)], part.target)


def anchors(*strengths: float, fisher: bool) -> list[dict[str, object]]:
    """Each strength at two learning rates: a small rate forgets less by itself."""
    return [
        {"recipe": f"l2_anchor(strength={one}, fisher={fisher}, where={BODY})", "learning_rate": rate}
        for one in strengths
        for rate in (0.05, 0.02)
    ]


study = Study(
    question="Learning five tasks in sequence, does an anchor forget less than plain training, and does the unweighted "
    "anchor keep up with the Fisher-weighted one?",
    setting="digits in five tasks of two classes, MLP 64-256-256-10 with a head for each task, 10 epochs a task",
    run=run,
    arms={
        "none": plain(6, rates=(0.2, 0.1, 0.05, 0.02, 0.01, 0.005)),
        "l2_anchor": anchors(0.03, 0.1, 0.3, fisher=False),
        "ewc": anchors(100.0, 1000.0, 10000.0, fisher=True),
    },
    expectations=[
        Expectation("l2_anchor", "none"),
        Expectation("l2_anchor", "none", "forgetting", "lower"),
        Expectation("l2_anchor", "ewc", margin=-0.01),
    ],
)
