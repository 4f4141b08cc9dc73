"""Does a network that is asked to answer as before remember earlier tasks better than one that is fine-tuned?"""

from __future__ import annotations

from tikhon.studies.split_digits import run
from tikhon.studies.study import Expectation, Study, plain

study = Study(
    question="Learning five tasks in sequence, is distilling the old network more accurate at the end than fine-tuning "
    "alone, does it forget less, and does it learn new tasks as well?",
    setting="digits in five tasks of two classes, MLP 64-256-256-10 with a head for each task, 10 epochs a task",
    run=run,
    arms={
        "none": plain(3, rates=(0.1, 0.05, 0.02)),
        "lwf": [{"recipe": f"lwf(strength={one})", "learning_rate": 0.05} for one in (0.3, 1.0, 3.0)],
    },
    expectations=[
        Expectation("lwf", "none"),
        Expectation("lwf", "none", "forgetting", "lower"),
        Expectation("lwf", "none", "learned", margin=-0.01),
    ],
)
