"""What is the matter: data and a plain training measured, and which problems of the catalogue that speaks of.

The rules are few and meant to be read. Each takes what was measured without the test data:

- noisy-labels: networks that have not seen a sample agree with its label less than with each other, by 5% or more
- overfitting: the metric on training data ends 0.05 or more above that on validation data
- calibration: the expected calibration error on validation data is 0.05 or more
- imbalance: the most frequent class has five times the samples of the least frequent, or more
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.data import Split, Task, build_model, load_task
from tikhon.data.seeds import torch_generator
from tikhon.measures.calibration import expected_calibration_error
from tikhon.studies.experiment import Report, accuracy, base_loss, make_optimizer, r_squared

FOLDS = 3

NOISE, GAP, CALIBRATION, IMBALANCE = 0.05, 0.05, 0.05, 5.0


@dataclass(frozen=True)
class Finding:
    """A problem of `core.card.PROBLEMS`, and the measurement that speaks of it."""

    problem: str
    seen: str


def findings(measured: Mapping[str, Any]) -> list[Finding]:
    """The problems that the rules find in what was measured, worst-founded last."""
    found = []
    noise, gap, error = measured["label_noise"], measured["gap"], measured["calibration_error"]
    if noise is not None and noise >= NOISE:
        found.append(Finding("noisy-labels", f"about {noise:.0%} of the labels look wrong to networks without them"))
    if gap >= GAP:
        found.append(
            Finding(
                "overfitting",
                f"training ends at {measured['train_metric']:.3f} on training and {measured['validation_metric']:.3f} "
                "on validation data",
            )
        )
    if error is not None and error >= CALIBRATION:
        found.append(Finding("calibration", f"the expected calibration error on validation data is {error:.3f}"))
    ratio = measured["imbalance"]
    if ratio is not None and ratio >= IMBALANCE:
        found.append(Finding("imbalance", f"the most frequent class has {ratio:.1f} times the samples of the rarest"))
    return found


def measure(cell: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Measure the data and the plain training of a cell, in a worker; plain values.

    samples, inputs (image, signal or table), classes and imbalance (None for values), train_metric, validation_metric
    (at the end), best_validation_metric, best_epoch, gap (of the first two), calibration_error and label_noise (None
    for values), seconds.
    """
    begin = time.monotonic()
    task = load_task(**cell["task"], seed=cell["seed"])
    parts = 2 * FOLDS + 1 if task.kind == "classes" else 1

    def told(part: int) -> Report:
        return lambda fraction: report((part + fraction) / parts)

    model, history = _trained(cell, task, task.train, cell["epochs"], told(0))
    train, validation = (history["train"], history["validation"])
    best = max(range(len(validation)), key=validation.__getitem__)
    found: dict[str, Any] = {
        "samples": len(task.train),
        "inputs": {3: "image", 2: "signal"}.get(len(task.input_shape), "table"),
        "classes": task.classes,
        "imbalance": None,
        "train_metric": train[-1],
        "validation_metric": validation[-1],
        "best_validation_metric": validation[best],
        "best_epoch": best,
        "gap": train[-1] - validation[-1],
        "calibration_error": None,
        "label_noise": None,
    }
    if task.kind == "classes":
        counts = torch.bincount(task.train.target)
        found["imbalance"] = float(counts.max() / counts.min())
        probabilities = _predicted(model, task.validation.inputs)
        found["calibration_error"] = expected_calibration_error(probabilities, task.validation.target)
        found["label_noise"] = suspected_noise(*_unseen(cell, task, best + 1, told), labels=task.train.target)
    return {**found, "seconds": time.monotonic() - begin}


def suspected_noise(one: Tensor, other: Tensor, labels: Tensor) -> float:
    """How much less two predictions agree with the labels than with each other, as a share, at least 0.

    one, other: (n,) classes, predicted by networks that have not seen the samples; labels: (n,). Where a share r of the
    labels is wrong, networks that are right with probability a agree with 1 - r of a, and with each other as they
    would with right labels: 1 - (agreement with labels) / (agreement with each other) is about r. On a hard task they
    agree little with either; errors that networks have in common look like wrong labels all the same.
    """
    together = (one == other).double().mean()
    with_labels = 0.5 * ((one == labels).double().mean() + (other == labels).double().mean())
    return max(0.0, float(1.0 - with_labels / together)) if together > 0 else 0.0


def _unseen(cell: Mapping[str, Any], task: Task, epochs: int, told: Callable[[int], Report]) -> tuple[Tensor, Tensor]:
    """Twice, the class of every training sample by a network trained without it, for as long as is best there."""
    found = []
    for time_of in range(2):
        order = torch.randperm(len(task.train), generator=torch_generator(cell["seed"], f"folds {time_of}"))
        classes = torch.zeros(len(task.train), dtype=torch.int64)
        for fold, held_out in enumerate(order.chunk(FOLDS)):
            others = torch.ones(len(task.train), dtype=torch.bool)
            others[held_out] = False
            rest = task.train[others.nonzero().squeeze(1)]
            again = {**cell, "seed": cell["seed"] + time_of}
            model, _ = _trained(again, task, rest, epochs, told(1 + FOLDS * time_of + fold))
            classes[held_out] = _predicted(model, task.train.inputs[held_out]).argmax(1)
        found.append(classes)
    return found[0], found[1]


def _trained(
    cell: Mapping[str, Any], task: Task, train: Split, epochs: int, report: Report
) -> tuple[nn.Module, dict[str, list[float]]]:
    measured = accuracy if task.kind == "classes" else r_squared

    def on(split: Split) -> Any:
        return lambda model: measured(model(split.inputs), split.target)

    model, history = fit(
        build_model(cell["model"], task, seed=cell["seed"]),
        Recipe(base=base_loss(task), seed=cell["seed"]),
        (train.inputs, train.target),
        epochs=epochs,
        batch_size=cell["batch_size"],
        optimizer=make_optimizer(cell),
        metrics={"train": on(train), "validation": on(task.validation)},
        seed=cell["seed"],
        on_epoch=lambda epoch, _: report((epoch + 1) / epochs),
    )
    return model.eval(), history.metrics


@torch.no_grad()
def _predicted(model: nn.Module, inputs: Tensor) -> Tensor:
    found: Tensor = model(inputs).softmax(1)
    return found
