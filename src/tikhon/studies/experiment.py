"""One training run of a comparison: from a cell, which says all that determines the numbers, to its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.core.fit import History, fit
from tikhon.core.recipe import Recipe
from tikhon.data import Split, Task, build_model, load_task
from tikhon.studies.arms import Arm, parse_arm
from tikhon.studies.cost import TrainingStep, peak_memory
from tikhon.studies.statistics import expected_calibration_error, reliability

Cell = Mapping[str, Any]
Report = Callable[[float], None]

LEARNING_RATE = {"sgd": 0.1, "adam": 1e-3}


def cell(
    *,
    task: Mapping[str, Any],
    model: str,
    arm: str,
    seed: int,
    epochs: int,
    batch_size: int = 128,
    optimizer: str = "sgd",
    learning_rate: float | None = None,
) -> dict[str, Any]:
    """All that determines a run's numbers, as plain values: the same cell gives the same numbers to the bit.

    task: arguments of `load_task` but the seed. The sources of the methods belong to the cell, so that results of an
    older source are never taken for results of this one.
    """
    return {
        "task": dict(task),
        "model": model,
        "arm": arm,
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate if learning_rate is not None else LEARNING_RATE[optimizer],
        "sources": parse_arm(arm).sources(),
        "versions": {"tikhon": tikhon.__version__, "torch": torch.__version__},
    }


def run_cell(cell: Cell, report: Report) -> dict[str, Any]:
    """Train one arm with one seed. All arms of a seed share split, corruption, first weights and order of batches."""
    task = load_task(**cell["task"], seed=cell["seed"])
    arm = parse_arm(cell["arm"])
    recipe = Recipe(*arm.methods(), base=base_loss(task), seed=cell["seed"])
    metrics = {
        name: _metric(task, split)
        for name, split in (("train", task.train), ("validation", task.validation), ("test", task.test))
    }
    model, history = fit(
        build_model(cell["model"], task, seed=cell["seed"]),
        recipe,
        (task.train.inputs, task.train.target),
        epochs=cell["epochs"],
        batch_size=cell["batch_size"],
        optimizer=make_optimizer(cell),
        metrics=metrics,
        keep_best="validation" if arm.early_stopping else None,
        seed=cell["seed"],
        on_epoch=lambda epoch, _: report((epoch + 1) / cell["epochs"]),
    )
    return _result(model, recipe, task, history, metrics, _step_memory(cell, task, arm))


def _step_memory(cell: Cell, task: Task, arm: Arm) -> int:
    batch = slice(cell["batch_size"])
    step = TrainingStep(
        Recipe(*arm.methods(), base=base_loss(task), seed=cell["seed"]),
        build_model(cell["model"], task, seed=cell["seed"]),
        task.train.inputs[batch],
        task.train.target[batch],
        make_optimizer(cell),
    )
    return peak_memory(step)


def base_loss(task: Task) -> Callable[..., Tensor]:
    return F.cross_entropy if task.kind == "classes" else F.mse_loss


def make_optimizer(cell: Cell) -> Callable[[Any], torch.optim.Optimizer]:
    rate = cell["learning_rate"]
    if cell["optimizer"] == "adam":
        return lambda parameters: torch.optim.Adam(parameters, lr=rate)
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def accuracy(output: Tensor, labels: Tensor) -> float:
    return float((output.argmax(1) == labels).double().mean())


def r_squared(output: Tensor, values: Tensor) -> float:
    """1 - residual / total sum of squares; 1 is perfect, 0 is as good as the mean."""
    residual = (output - values).double().square().sum()
    return float(1.0 - residual / (values - values.mean(0)).double().square().sum())


def _metric(task: Task, split: Split) -> Callable[[nn.Module], float]:
    measure, target = (accuracy if task.kind == "classes" else r_squared), split.target
    return lambda model: measure(model(split.inputs), target)


def _result(
    model: nn.Module,
    recipe: Recipe,
    task: Task,
    history: History,
    metrics: Mapping[str, Callable[[nn.Module], float]],
    memory: int,
) -> dict[str, Any]:
    model.eval()
    with torch.no_grad():
        final = {name: metric(model) for name, metric in metrics.items()}
        probabilities = recipe.probabilities(model(task.test.inputs)) if task.kind == "classes" else None
    labels = task.test.target.numpy()
    return {
        "metric_name": "accuracy" if task.kind == "classes" else "r2",
        "metric": final["test"],
        "train_metric": final["train"],
        "validation_metric": final["validation"],
        "gap": final["train"] - final["test"],
        "calibration_error": (
            None if probabilities is None else expected_calibration_error(probabilities.numpy(), labels)
        ),
        "reliability": None if probabilities is None else reliability(probabilities.numpy(), labels),
        "best_epoch": history.best_epoch,
        "epochs": len(history.train_loss),
        "seconds": history.seconds,
        "peak_memory": memory,
        "curves": {
            "train_loss": history.train_loss,
            **{f"{name}_metric": values for name, values in history.metrics.items()},
        },
    }
