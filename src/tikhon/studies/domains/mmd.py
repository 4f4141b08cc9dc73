"""Does matching features in distribution with unlabelled turned digits make a network right on them more often?"""

from __future__ import annotations

from torch import Tensor

from tikhon.core.method import Method
from tikhon.methods.domains.mmd import MMD
from tikhon.studies.study import Expectation, Settings, Study
from tikhon.studies.turned import SETTING, turned_digits


def methods(settings: Settings, turned: Tensor) -> list[Method]:
    return [MMD(unlabelled=turned, strength=settings["strength"])] if settings["strength"] else []


study = Study(
    question="On turned digits, known in training without labels, is accuracy with MMD above that of plain training?",
    setting=SETTING,
    run=turned_digits(methods),
    arms={
        "none": [{"strength": 0.0, "learning_rate": rate} for rate in (1e-3, 3e-4, 3e-3)],
        "mmd": [{"strength": strength, "learning_rate": 1e-3} for strength in (0.1, 1.0, 10.0)],
    },
    expectations=[Expectation("mmd", "none")],
)
