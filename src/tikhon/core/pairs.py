"""Pairs: what losses on a chosen and a rejected answer share."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.errors import TikhonError


def log_ratios_of_pairs(policy: Tensor, reference: Tensor, method: str) -> Tensor:
    """log pi / pi_ref of the chosen and the rejected answer, (B, 2), from log-probabilities of this shape.

    Raises `TikhonError`, in the name of `method`, for any other shape.
    """
    if policy.ndim != 2 or policy.shape[1] != 2:
        raise TikhonError(
            f"{method} compares pairs: the output must be (B, 2), log-probabilities of the chosen and the rejected "
            f"answer, and the target those of the reference; the output is {tuple(policy.shape)}."
        )
    return policy - reference


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """One loss a pair, (B,), or their mean: what a loss function of torch gives for reduction="none" or "mean"."""
    return losses if reduction == "none" else losses.mean()
