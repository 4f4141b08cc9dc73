"""One training run of a comparison: from a cell, which says all that determines the numbers, to its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon
from tikhon.core.errors import Diverged, TikhonError
from tikhon.core.fit import History, fit
from tikhon.core.recipe import Recipe
from tikhon.data import Split, Task, build_model, load_task
from tikhon.data.names import unknown
from tikhon.measures.calibration import reliability
from tikhon.studies.arms import Arm, parse_arm
from tikhon.studies.cost import TrainingStep, peak_memory

Cell = Mapping[str, Any]
Report = Callable[[float], None]

LEARNING_RATE = {"sgd": 0.1, "adam": 1e-3}

EPOCHS = {"digits": 60, "mnist5k": 30, "mnist1d": 120, "breast_cancer": 150, "wine": 200, "diabetes": 150}
"""Long enough that plain training overfits where labels are wrong, and a run still takes seconds."""
EPOCHS_OF_OWN_DATA = 60


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
    sources: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All that determines a run's numbers, as plain values: the same cell gives the same numbers to the bit.

    task: arguments of `load_task` but the seed. The sources of the methods belong to the cell, so that results of an
    older source are never taken for results of this one. sources: hashes of what else the numbers rest on, such as
    the user's own data and model.
    """
    if optimizer not in LEARNING_RATE:
        raise unknown("optimizer", optimizer, LEARNING_RATE)
    if epochs < 1 or batch_size < 1:
        raise TikhonError(f"epochs and batch size must be at least 1, not {epochs} and {batch_size}.")
    if learning_rate is not None and not (math.isfinite(learning_rate) and learning_rate > 0):
        raise TikhonError(f"the learning rate must be finite and positive, not {learning_rate}.")
    return {
        "task": dict(task),
        "model": model,
        "arm": arm,
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate if learning_rate is not None else LEARNING_RATE[optimizer],
        "sources": {**parse_arm(arm).sources(), **(sources or {})},
        "versions": {"tikhon": tikhon.__version__, "torch": torch.__version__},
    }


def run_cell(cell: Cell, report: Report) -> dict[str, Any]:
    """Train one arm with one seed. All arms of a seed share split, corruption, first weights and order of batches.

    Raises `Diverged` where a loss, a metric or the trained model's output is not finite.
    """
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
    return _result(model, recipe, task, history, metrics, peak_memory(training_step(cell, task, arm)))


def attempt_cell(cell: Cell, report: Report) -> dict[str, Any]:
    """`run_cell`, but a run that diverged has a result too, {"failed": why}, so that the other arms go on."""
    try:
        return run_cell(cell, report)
    except Diverged as error:
        return {"failed": str(error)}


def training_step(cell: Cell, task: Task, arm: Arm) -> TrainingStep:
    """A step of the cell's training, not yet taken. What cannot run together, or not with this model, is refused."""
    batch = slice(cell["batch_size"])
    return TrainingStep(
        Recipe(*arm.methods(), base=base_loss(task), seed=cell["seed"]),
        build_model(cell["model"], task, seed=cell["seed"]),
        task.train.inputs[batch],
        task.train.target[batch],
        make_optimizer(cell),
    )


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
    curves = {
        "train_loss": history.train_loss,
        **{f"{name}_metric": values for name, values in history.metrics.items()},
    }
    model.eval()
    with torch.no_grad():
        output = model(task.test.inputs)
        _refuse_nonfinite(output, curves)
        final = {name: metric(model) for name, metric in metrics.items()}
        diagram = reliability(recipe.probabilities(output), task.test.target) if task.kind == "classes" else None
    return {
        "metric_name": "accuracy" if task.kind == "classes" else "r2",
        "metric": final["test"],
        "train_metric": final["train"],
        "validation_metric": final["validation"],
        "gap": final["train"] - final["test"],
        "calibration_error": None if diagram is None else diagram.expected_error,
        "reliability": None if diagram is None else diagram.plain(),
        "best_epoch": history.best_epoch,
        "epochs": len(history.train_loss),
        "seconds": history.seconds,
        "peak_memory": memory,
        "curves": curves,
    }


def _refuse_nonfinite(output: Tensor, curves: Mapping[str, list[float]]) -> None:
    """The loss is checked while training; what the last step broke, or only a metric shows, is found here."""
    for name, values in curves.items():
        for epoch, value in enumerate(values):
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} after epoch {epoch}. Lower the learning rate.")
    if not bool(output.isfinite().all()):
        raise Diverged("The trained model's output on the test split is NaN or infinite. Lower the learning rate.")
