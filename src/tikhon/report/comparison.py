"""The numbers that a comparison shows, before anything is drawn or worded."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tikhon.core.errors import TikhonError
from tikhon.measures.calibration import PlainReliability

BASELINE = "none"


@dataclass(frozen=True)
class Arm:
    """One recipe of a comparison, summed up over its seeds. All numbers are fractions; higher metrics are better.

    ``low`` and ``high`` bound the 95% interval of ``mean``; ``difference`` is the mean over seeds of this arm minus
    the arm ``none``, with its own 95% interval. They are None where they do not exist: for a single seed, for ``none``
    itself, or without ``none``. ``gap`` is the training metric minus the test metric; ``relative_time`` and
    ``relative_memory`` are multiples of ``none``.

    ``seeds`` holds one mapping a seed with at least "seed" (what pairs the arms) and "metric"; further keys are passed
    on to machines as they are. A seed whose run diverged has the metric None and says why in "failed"; all other
    numbers are those of the seeds that finished.

    ``curves`` maps a name ("test_metric", "train_loss", ...) to one list of values by epoch for each seed.
    ``reliability`` is the diagram of all seeds' test predictions together; None where there is no confidence, as in
    regression.
    """

    name: str
    mean: float
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    calibration_error: float | None
    gap: float | None
    relative_time: float | None
    relative_memory: float | None
    seeds: list[dict[str, Any]]
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    reliability: PlainReliability | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval of the paired difference excludes zero."""
        if self.difference_low is None or self.difference_high is None:
            return False
        return self.difference_low > 0 or self.difference_high < 0

    @property
    def finished(self) -> dict[int, float]:
        """The metric of every seed whose run did not diverge."""
        return {run["seed"]: run["metric"] for run in self.seeds if run["metric"] is not None}

    @property
    def failed(self) -> dict[int, str]:
        """Why a run diverged, by seed."""
        return {run["seed"]: run["failed"] for run in self.seeds if run["metric"] is None}


@dataclass(frozen=True)
class Comparison:
    """A task (its settings by name; "metric" is "accuracy" or "r2") and the arms that ran on it.

    Raises TikhonError when there is no arm or when two arms share a name.
    """

    task: dict[str, Any]
    arms: list[Arm]

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not names:
            raise TikhonError("A comparison without arms shows nothing: give it at least one finished arm.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TikhonError(f"Two arms of a comparison are both called {twice[0]!r}: name each arm once.")

    @property
    def baseline(self) -> Arm | None:
        """The arm ``none``, where it ran."""
        return next((arm for arm in self.arms if arm.name == BASELINE), None)

    @property
    def best(self) -> Arm:
        """The arm with the highest mean; one that diverged comes last."""
        return max(self.arms, key=lambda arm: arm.mean if math.isfinite(arm.mean) else -math.inf)

    def paired(self, arm: Arm) -> list[float]:
        """This arm minus ``none`` for every seed that both finished, in the arm's order; [] without ``none``."""
        if self.baseline is None:
            return []
        plain = self.baseline.finished
        return [metric - plain[seed] for seed, metric in arm.finished.items() if seed in plain]


JSON_FIELDS = (
    "name",
    "mean",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "calibration_error",
    "gap",
    "relative_time",
    "relative_memory",
    "seeds",
)


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one object for ``json.dumps``: ``{"task": {...}, "arms": [{"name", "mean", ...}]}``.

    Fractions, not percent. A number that is not finite becomes None, since JSON has no word for it.
    """
    return {
        "task": _plain(comparison.task),
        "arms": [{name: _plain(getattr(arm, name)) for name in JSON_FIELDS} for arm in comparison.arms],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
