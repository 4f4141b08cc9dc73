"""Does one training remove 60% of a network's units at no loss of accuracy, and beat the group envelope at it?"""

from __future__ import annotations

from tikhon.studies.pruning import run
from tikhon.studies.study import Expectation, Study, plain, recipes


def _removing(strength: float) -> str:
    warm_up = f"stepwise({{0.0: 0.0, 0.2: {strength}}})"
    return f"dhspg(remove=0.6, tolerance=0.05, strength={warm_up})"


study = Study(
    question="Asked to remove 60% of the units, does training leave at most 45%, at a loss of at most one point and a "
    "higher accuracy than the group envelope that is asked for the same?",
    setting="digits, MLP 64-256-256-10, 60 epochs, exported and physically pruned",
    run=run,
    arms={
        "none": plain(3),
        "dhspg": recipes(_removing(0.3), _removing(1.0), _removing(3.0)),
        "wgsef": recipes(
            "wgsef(keep=0.4, strength=0.05)", "wgsef(keep=0.4, strength=0.1)", "wgsef(keep=0.4, strength=0.2)"
        ),
    },
    expectations=[
        Expectation("dhspg", "none", "units", "lower", margin=0.55),
        Expectation("dhspg", "none", margin=-0.01),
        Expectation("dhspg", "wgsef"),
    ],
)
