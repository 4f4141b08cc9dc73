"""Does Hessian alignment unlearn a colour that agrees with the label in training only?"""

from __future__ import annotations

from torch import Tensor

from tikhon.core.method import Method
from tikhon.methods.domains.hessian_align import HessianAlignment
from tikhon.studies.colours import coloured_digits
from tikhon.studies.study import Expectation, Settings, Study


def methods(settings: Settings, domains: Tensor) -> list[Method]:
    strength = settings["strength"]
    return [HessianAlignment(domains, alpha=strength, beta=strength)] if strength else []


study = Study(
    question="Where the colour is reversed, is accuracy with Hessian alignment 15 points above that of plain training?",
    setting="digits below and above 5, labels flipped in 25%, colour that agrees with them in 90% and 80%, at test 10%",
    run=coloured_digits(methods, epochs=60, batch_size=256, chosen="inside"),
    arms={
        "none": [{"strength": 0.0, "learning_rate": rate} for rate in (1e-3, 3e-3, 3e-4)],
        "hessian_align": [{"strength": strength, "learning_rate": 1e-3} for strength in (1.0, 10.0, 100.0)],
    },
    expectations=[Expectation("hessian_align", "none", margin=0.15)],
)
