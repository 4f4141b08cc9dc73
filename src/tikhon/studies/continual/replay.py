"""Classes arrive two by two and compete in the end: what do a few stored samples save, and what do penalties?"""

from __future__ import annotations

from tikhon.studies.split_digits import run
from tikhon.studies.study import Expectation, Study, plain


def _competing(rate: float, recipe: str) -> dict[str, object]:
    return {"recipe": recipe, "learning_rate": rate, "compete": True}


study = Study(
    question="Where all classes compete at the end, are five stored samples a class at least 30 points better than "
    "fine-tuning and than elastic weight consolidation, and are twenty better than five?",
    setting="digits in five tasks of two classes that all compete, MLP 64-256-256-10, 10 epochs a task",
    run=run,
    arms={
        "none": [{**one, "compete": True} for one in plain(3, rates=(0.1, 0.05, 0.02))],
        "replay of 5": [_competing(rate, "replay(size=50)") for rate in (0.1, 0.05, 0.02)],
        "replay of 20": [_competing(rate, "replay(size=200)") for rate in (0.1, 0.05, 0.02)],
        "ewc": [_competing(0.05, f"ewc(strength={one})") for one in (100.0, 1000.0, 10000.0)],
    },
    expectations=[
        Expectation("replay of 5", "none", margin=0.3),
        Expectation("replay of 5", "ewc", margin=0.3),
        Expectation("replay of 20", "replay of 5"),
    ],
)
