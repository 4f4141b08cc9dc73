"""Is linear decay as good as cosine, and is it better once refined?"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from tikhon.core.fit import batches
from tikhon.data import Task, build_model, load_task
from tikhon.measures.refined_schedule import GradientNorms, refined_schedule
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS = 20
BATCH = 32

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train with a schedule; "refined" trains twice as long: once with linear decay, to record the norms.

    Measures: metric and validation (accuracy), loss (cross-entropy on the test set).
    """
    task = load_task("digits", seed=seed)
    steps = EPOCHS * -(-len(task.train.target) // BATCH)
    if settings["schedule"] == "refined":
        _, norms = _trained(task, settings["learning_rate"], lambda step: 1.0 - step / steps, seed)
        rates = refined_schedule(norms).tolist()
        model, _ = _trained(task, settings["learning_rate"], lambda step: rates[min(step, steps - 1)], seed)
    else:
        schedule = SCHEDULES[settings["schedule"]]
        model, _ = _trained(task, settings["learning_rate"], lambda step: schedule(step / steps), seed)
    report(1.0)
    model.eval()
    with torch.no_grad():
        output = model(task.test.inputs)
        return {
            "metric": accuracy(output, task.test.target),
            "loss": float(F.cross_entropy(output, task.test.target)),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
        }


def _trained(task: Task, rate: float, schedule: Callable[[int], float], seed: int) -> tuple[nn.Module, torch.Tensor]:
    model = build_model("mlp", task, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    recorder = GradientNorms(optimizer)
    for epoch in range(EPOCHS):
        for _, inputs, target in batches(task.train.inputs, task.train.target, BATCH, seed, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), target).backward()
            optimizer.step()
            scheduler.step()
    return model, recorder.values().clamp_min(1e-12)


def rates(schedule: str) -> list[Settings]:
    return [{"schedule": schedule, "learning_rate": rate} for rate in (0.1, 0.3, 1.0)]


study = Study(
    question="Is linear decay no more than half a point behind cosine, and is the refined schedule no more than half a "
    "point behind linear decay, with a lower test loss?",
    setting="digits, MLP 64-256-256-10, SGD without momentum, 20 epochs, batch 32",
    run=run,
    arms={name: rates(name) for name in ("constant", "cosine", "linear", "refined")},
    expectations=[
        Expectation("linear", "cosine", margin=-0.005),
        Expectation("refined", "linear", margin=-0.005),
        Expectation("refined", "linear", "loss", "lower"),
    ],
)
