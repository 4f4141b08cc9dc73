"""Calibration errors beside torchmetrics."""

from __future__ import annotations

import torch
from torchmetrics.functional.classification import multiclass_calibration_error

import tikhon as tk
from benchmarks.harness import Pair, case


@case("expected calibration error, 50,000 x 10, 15 bins", peer="torchmetrics")
def expected() -> Pair:
    logits = 2.0 * torch.randn(50_000, 10)
    target = (logits + torch.randn(50_000, 10)).argmax(1)
    probabilities = logits.softmax(1)
    return Pair(
        lambda: tk.expected_calibration_error(probabilities, target, bins=15),
        lambda: multiclass_calibration_error(probabilities, target, num_classes=10, n_bins=15, norm="l1"),
    )
