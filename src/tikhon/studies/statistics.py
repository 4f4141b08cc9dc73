"""What a comparison reports: means with intervals, paired differences, calibration."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from tikhon.core.errors import TikhonError


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean and Student's t confidence interval of independent values.

    values: (n,), finite, one number a seed. level: the interval's coverage, in (0, 1).
    Returns (mean, low, high) with low, high = mean -/+ t_{n-1, (1+level)/2} s / sqrt(n), where s is the sample standard
    deviation; one value has no interval: (mean, None, None). Exact for normal values.

    >>> mean_interval([0.5])
    (0.5, None, None)
    """
    sample = _sample(values, "values")
    if not 0 < level < 1:
        raise TikhonError(f"level is {level}; the coverage of an interval lies between 0 and 1, for example 0.95.")
    mean = float(sample.mean())
    if len(sample) == 1:
        return mean, None, None
    half = float(stdtrit(len(sample) - 1, (1 + level) / 2)) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return mean, mean - half, mean + half


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean of a - b with its t interval, where a[i] and b[i] share seed i (split, corruption, weights, order).

    a, b: (n,), finite. The variation that both share cancels, so this interval is narrower than that of two
    independent means. Returns (mean, low, high); low and high are None for one pair.
    """
    first, second = _sample(a, "a"), _sample(b, "b")
    if len(first) != len(second):
        raise TikhonError(f"a has {len(first)} values and b has {len(second)}; pairs need one of each for every seed.")
    return mean_interval(first - second, level)


class Reliability(TypedDict):
    """A reliability diagram: for every bin of confidence, mean confidence, accuracy (None if empty) and count."""

    confidence: list[float | None]
    accuracy: list[float | None]
    count: list[int]


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Reliability:
    """How often predictions of a given confidence are right (Guo et al. 2017, arXiv 1706.04599, section 2).

    probabilities: (n, K), rows sum to 1. labels: (n,), integers in [0, K). bins: M, how many bins of equal width.
    The confidence of a prediction is its largest probability; bin m holds confidences in ((m-1)/M, m/M].
    Returns lists of length M of plain numbers, ready for JSON.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    y = np.asarray(labels)
    _check_predictions(p, y, bins)
    confidence = p.max(axis=1)
    correct = p.argmax(axis=1) == y
    member = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    count = np.bincount(member, minlength=bins)

    def mean_by_bin(values: NDArray[np.float64]) -> list[float | None]:
        totals = np.bincount(member, weights=values, minlength=bins)
        return [float(total / n) if n else None for total, n in zip(totals, count, strict=True)]

    return Reliability(
        confidence=mean_by_bin(confidence), accuracy=mean_by_bin(correct.astype(np.float64)), count=count.tolist()
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """ECE = sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|, in [0, 1] (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Arguments as for `reliability`. It is biased upwards for few samples: compare it only at equal n and bins.

    >>> expected_calibration_error([[0.75, 0.25], [0.75, 0.25]], [0, 1])
    0.25
    """
    diagram = reliability(probabilities, labels, bins)
    gaps = [
        n * abs(accuracy - confidence)
        for confidence, accuracy, n in zip(diagram["confidence"], diagram["accuracy"], diagram["count"], strict=True)
        if confidence is not None and accuracy is not None
    ]
    return math.fsum(gaps) / sum(diagram["count"])


def _sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise TikhonError(f"{name} has the shape {sample.shape}; statistics need one row of at least one number.")
    if not np.isfinite(sample).all():
        raise TikhonError(f"{name} holds NaN or infinity; leave out or repeat the runs that diverged.")
    return sample


def _check_predictions(p: NDArray[np.float64], y: NDArray[np.generic], bins: int) -> None:
    if bins < 1:
        raise TikhonError(f"bins is {bins}; calibration needs at least one bin.")
    if p.ndim != 2 or p.size == 0 or y.shape != p.shape[:1]:
        raise TikhonError(
            f"probabilities have the shape {p.shape} and labels {y.shape}; calibration needs (n, K) and (n,), n > 0."
        )
    # Half-precision rows miss 1 by up to about 0.01; logits miss it by more.
    if not (np.isfinite(p).all() and (p >= 0).all() and (np.abs(p.sum(axis=1) - 1) < 0.02).all()):
        raise TikhonError("probabilities must be non-negative with rows that sum to 1; are these logits? Use softmax.")
    if not np.issubdtype(y.dtype, np.integer):
        raise TikhonError(f"labels are {y.dtype}; calibration needs class indices, that is integers.")
    if int(y.min()) < 0 or int(y.max()) >= p.shape[1]:
        raise TikhonError(f"labels must lie in [0, {p.shape[1]}), but range from {y.min()} to {y.max()}.")
