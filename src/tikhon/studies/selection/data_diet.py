"""Is the harder half of the data, found early, worth more than a random half?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.data import Task, build_model, load_task
from tikhon.math.difficulty import el2n
from tikhon.methods.selection.data_diet import hardest
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS = 60
SCORE_EPOCHS = 5
NETWORKS = 5


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train on all data, on a random half, or on the half with the highest EL2N scores of five networks after five
    epochs. Every run takes as many steps. Measures: metric and validation (accuracy)."""
    task = load_task("digits", seed=seed)
    kept = _kept(settings["half"], task, seed)
    model, _ = fit(
        build_model("mlp", task, seed=seed),
        Recipe(seed=seed),
        (task.train.inputs[kept], task.train.target[kept]),
        epochs=EPOCHS if settings["half"] == "all" else 2 * EPOCHS,
        batch_size=64,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=0.9),
        seed=seed,
        on_epoch=lambda epoch, _: report(epoch / (2 * EPOCHS)),
    )
    model.eval()
    with torch.no_grad():
        return {
            "metric": accuracy(model(task.test.inputs), task.test.target),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
        }


def _kept(half: str, task: Task, seed: int) -> Tensor:
    count = len(task.train.target)
    if half == "all":
        return torch.arange(count)
    if half == "random":
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: round(0.5 * count)]
    scores = torch.zeros(count)
    for number in range(NETWORKS):
        other = 1000 * (number + 1) + seed  # networks that are none of those compared
        model, _ = fit(
            build_model("mlp", task, seed=other),
            Recipe(seed=other),
            (task.train.inputs, task.train.target),
            epochs=SCORE_EPOCHS,
            seed=other,
        )
        with torch.no_grad():
            scores += el2n(F.softmax(model(task.train.inputs), dim=1), task.train.target)
    return hardest(scores, keep=0.5)


def rates(half: str) -> list[dict[str, object]]:
    return [{"half": half, "learning_rate": rate} for rate in (0.1, 0.05, 0.2)]


study = Study(
    question="Is a network trained on the half with the highest EL2N scores more accurate than one trained on a random "
    "half, and within half a point of one trained on everything?",
    setting="digits, MLP 64-256-256-10, as many steps for all",
    run=run,
    arms={"none": rates("all"), "random": rates("random"), "data_diet": rates("hardest")},
    expectations=[
        Expectation("data_diet", "random"),
        Expectation("data_diet", "none", margin=-0.005),
    ],
)
