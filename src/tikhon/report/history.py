"""What `tikhon doctor` reads off the history of a training: its curves, a number by epoch.

A training is cut into fifths. The last is compared with others, so that a number has an interval: over epochs of one
training (Welch), over trainings where there are several (Student, paired).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from tikhon.core.errors import TikhonError
from tikhon.math.statistics import mean_interval, welch_difference
from tikhon.report.curves import Curves
from tikhon.report.patient import Trained
from tikhon.report.readings import Reading

PARTS, FEWEST_EPOCHS = 5, 10
HELD_OUT = ("validation_metric", "test_metric")
SAY = "Patient(..., history=history), as tk.fit returns one and tk.Doctor keeps one"


@dataclass(frozen=True)
class _Part:
    """A fifth of the epochs of a training."""

    first: int
    values: Sequence[float]


def past_best(patient: Trained) -> Reading:
    """How much lower the held-out metric ends than it was in the fifth of training of which that is surest."""
    trainings = [_parts(curves) for curves in patient.histories]
    level = 1.0 - 0.05 / (PARTS - 1)  # four fifths are looked at, and all four intervals are to hold
    found = []
    for part in range(PARTS - 1):
        one = trainings[0][part]
        where = f"since epochs {one.first + 1} to {one.first + len(one.values)}" if len(trainings) == 1 else ""
        found.append(_difference([(parts[part], parts[-1]) for parts in trainings], level, where))
    return max(found, key=lambda reading: reading.low)


def still_rising(patient: Trained) -> Reading:
    """How much higher the held-out metric is in the last fifth of training than in the one before."""
    return _difference([(parts[-1], parts[-2]) for parts in map(_parts, patient.histories)], 0.95, "")


def _difference(pairs: Sequence[tuple[_Part, _Part]], level: float, where: str) -> Reading:
    if len(pairs) == 1:
        value, low, high = welch_difference(pairs[0][0].values, pairs[0][1].values, level)
    else:
        value, low, high = mean_interval([fmean(one.values) - fmean(other.values) for one, other in pairs], level)
    assert low is not None  # two epochs or trainings at least
    assert high is not None
    return Reading(value, low, high, where)


def _parts(curves: Curves) -> list[_Part]:
    """The fifths of the held-out metric."""
    name = next((one for one in HELD_OUT if one in curves), None)
    if not curves:
        raise TikhonError(f"There is no history: {SAY}.")
    if name is None:
        raise TikhonError(f"The history has {', '.join(curves)}, but no metric called validation or test.")
    values = curves[name]
    if len(values) < FEWEST_EPOCHS:
        raise TikhonError(f"The history has {len(values)} epochs; {FEWEST_EPOCHS} are needed.")
    if not all(map(math.isfinite, values)):
        raise TikhonError(f"The {name.replace('_', ' ')} is not finite in each epoch.")
    ends = [round(part * len(values) / PARTS) for part in range(PARTS + 1)]
    return [_Part(begin, values[begin:end]) for begin, end in pairwise(ends)]
