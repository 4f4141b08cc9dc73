"""Predictions and labels as measures take them: checked, in double precision and on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32


def checked_labels(labels: Tensor, classes: int | None = None, name: str = "labels") -> Tensor:
    """Class indices (n,), n at least 1, in [0, classes), as int64 on the CPU; otherwise a `TikhonError`."""
    if labels.ndim != 1 or not len(labels):
        raise TikhonError(f"{name} must be (n,) with n at least 1, not {tuple(labels.shape)}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TikhonError(f"{name} are {labels.dtype}; they must be class indices, that is integers.")
    found = labels.detach().cpu().long()
    low, high = (int(bound) for bound in torch.aminmax(found))
    if low < 0 or (classes is not None and high >= classes):
        raise TikhonError(f"{name} must lie in [0, {classes or '...'}), but range from {low} to {high}.")
    return found


def checked_predictions(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (n, K) as float64 and labels (n,) as int64, both on the CPU; otherwise a `TikhonError`."""
    p, y = given_predictions(probabilities, labels)
    return p.double(), y


def given_predictions(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """As `checked_predictions`, but probabilities in the precision they have, at least float32: no copy is made."""
    if probabilities.ndim != 2 or not probabilities.numel() or labels.shape != probabilities.shape[:1]:
        raise TikhonError(
            f"Probabilities (n, K) and labels (n,) with n > 0 are needed, not {tuple(probabilities.shape)} and "
            f"{tuple(labels.shape)}."
        )
    p = at_least_float32(probabilities.detach().cpu())
    # Half-precision rows miss 1 by up to about 0.01; logits miss it by more. A NaN fails every comparison.
    if not (float(p.min()) >= 0.0 and float((p.sum(1) - 1.0).abs().max()) < 0.02):
        raise TikhonError("probabilities must be non-negative with rows that sum to 1; are these logits? Use softmax.")
    return p, checked_labels(labels, p.shape[1])


def checked_rows(values: Tensor, name: str) -> Tensor:
    """One finite number a sample, (n,) with n at least 1, as float64 on the CPU; otherwise a `TikhonError`."""
    if values.ndim != 1 or not len(values):
        raise TikhonError(f"{name} must be (n,) with n at least 1, one number a sample, not {tuple(values.shape)}.")
    found = values.detach().cpu().double()
    if not bool(found.isfinite().all()):
        raise TikhonError(f"{name} holds NaN or infinity; look for the samples that diverged.")
    return found
