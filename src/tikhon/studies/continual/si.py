"""Does synaptic intelligence remember earlier tasks, as well as elastic weight consolidation does?"""

from __future__ import annotations

from tikhon.studies.split_digits import BODY, run
from tikhon.studies.study import Expectation, Study, plain


def _at(rate: float, *recipes: str) -> list[dict[str, object]]:
    return [{"recipe": one, "learning_rate": rate} for one in recipes]


study = Study(
    question="Learning five tasks in sequence, is synaptic intelligence more accurate at the end and does it forget "
    "less than plain training, and is it no worse than elastic weight consolidation?",
    setting="digits in five tasks of two classes, MLP 64-256-256-10 with a head for each task, 10 epochs a task",
    run=run,
    arms={
        "none": plain(3, rates=(0.1, 0.05, 0.02)),
        "si": _at(0.05, *(f"si(strength={one}, where={BODY})" for one in (0.1, 1.0, 10.0))),
        "ewc": _at(0.05, *(f"ewc(strength={one}, where={BODY})" for one in (100.0, 1000.0, 10000.0))),
    },
    expectations=[
        Expectation("si", "none"),
        Expectation("si", "none", "forgetting", "lower"),
        Expectation("si", "ewc", margin=-0.01),
    ],
)
