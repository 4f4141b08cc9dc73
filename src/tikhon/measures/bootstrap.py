"""The bootstrap: an interval for any measure of samples, by measuring samples drawn from the samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.step import seed_for

__all__ = ["bootstrap_interval"]


def bootstrap_interval(
    measure: Callable[..., float | Tensor],
    *samples: Tensor,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A measure of samples with its pivotal bootstrap interval: (value, low, high).

        low, high = 2 value - q_{(1+level)/2}, 2 value - q_{(1-level)/2}   of the measure of resamples

    Use it for measures without an interval of their own, such as a calibration error or the estimated share of wrong
    labels. Not for extremes (a maximum over samples), nor for fewer than about 30 samples.

    measure: of rows of all `samples` at once, to a number; samples: tensors (n, ...) that belong together row by row;
    resamples: how many times n rows are drawn with replacement; level: the coverage, in (0, 1); seed: of the draws.
    What the draws add to the measure's bias is taken off again, so that the interval of a measure that is biased
    upwards reaches further down than that of the resamples' quantiles, and may leave the measure's range.
    Reference: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 2.4 (basic interval).

    >>> import torch
    >>> value, low, high = bootstrap_interval(lambda x: x.mean(), torch.linspace(0.0, 1.0, 101))
    >>> print(f"{value:.2f} [{low:.2f}, {high:.2f}]")
    0.50 [0.44, 0.56]
    """
    lengths = {len(one) for one in samples}
    if len(lengths) != 1 or 0 in lengths:
        raise TikhonError(f"Samples must have as many rows each, at least 1, not {sorted(lengths)}.")
    if resamples < 1 or not 0 < level < 1:
        raise TikhonError(f"resamples must be positive and level within (0, 1), not {resamples} and {level}.")
    count = lengths.pop()
    generator = torch.Generator().manual_seed(seed_for("bootstrap", seed))
    found = torch.empty(resamples, dtype=torch.float64)
    for number in range(resamples):
        rows = torch.randint(count, (count,), generator=generator)
        found[number] = float(measure(*(one[rows.to(one.device)] for one in samples)))
    value = float(measure(*samples))
    below, above = found.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return value, 2 * value - above, 2 * value - below
