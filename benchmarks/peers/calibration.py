"""Calibration errors beside torchmetrics, which has those of the predicted class."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

import tikhon as tk
from benchmarks.harness import Pair, case


def predictions(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    """Probabilities that are too sure of themselves, and labels."""
    logits = 2.0 * torch.randn(rows, classes)
    return logits.softmax(1), (logits + torch.randn(rows, classes)).argmax(1)


@case("expected calibration error, 50,000 x 10, 15 bins", peer="torchmetrics")
def expected() -> Pair:
    probabilities, target = predictions(50_000, 10)
    return Pair(
        lambda: tk.expected_calibration_error(probabilities, target, bins=15),
        lambda: multiclass_calibration_error(probabilities, target, num_classes=10, n_bins=15, norm="l1"),
    )


@case("expected calibration error, 10,000 x 1000, 15 bins", peer="torchmetrics")
def many_classes() -> Pair:
    probabilities, target = predictions(10_000, 1000)
    return Pair(
        lambda: tk.expected_calibration_error(probabilities, target, bins=15),
        lambda: multiclass_calibration_error(probabilities, target, num_classes=1000, n_bins=15, norm="l1"),
    )


@case("maximum calibration error, 50,000 x 10, 15 bins", peer="torchmetrics")
def maximum() -> Pair:
    probabilities, target = predictions(50_000, 10)
    return Pair(
        lambda: tk.maximum_calibration_error(probabilities, target, bins=15),
        lambda: multiclass_calibration_error(probabilities, target, num_classes=10, n_bins=15, norm="max"),
    )
