"""Does an anchor at the weights of earlier tasks keep a network from forgetting them?"""

from __future__ import annotations

from tikhon.studies.split_digits import BODY, run
from tikhon.studies.study import Expectation, Study, plain


def _at_two_rates(*recipes: str) -> list[dict[str, object]]:
    """Each recipe at two learning rates: a small rate forgets less by itself."""
    return [{"recipe": one, "learning_rate": rate} for one in recipes for rate in (0.05, 0.02)]


study = Study(
    question="Learning five tasks in sequence, does an anchor forget less than plain training, and does the unweighted "
    "anchor keep up with the Fisher-weighted one?",
    setting="digits in five tasks of two classes, MLP 64-256-256-10 with a head for each task, 10 epochs a task",
    run=run,
    arms={
        "none": plain(6, rates=(0.2, 0.1, 0.05, 0.02, 0.01, 0.005)),
        "l2_anchor": _at_two_rates(*(f"l2_anchor(strength={one}, where={BODY})" for one in (0.03, 0.1, 0.3))),
        "ewc": _at_two_rates(*(f"ewc(strength={one}, where={BODY})" for one in (100.0, 1000.0, 10000.0))),
    },
    expectations=[
        Expectation("l2_anchor", "none"),
        Expectation("l2_anchor", "none", "forgetting", "lower"),
        Expectation("l2_anchor", "ewc", margin=-0.01),
    ],
)
