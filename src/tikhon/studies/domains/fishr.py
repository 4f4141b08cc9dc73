"""Do gradients that vary alike in both domains unlearn a colour that agrees with the label in training only?"""

from __future__ import annotations

from torch import Tensor

from tikhon.core.method import Method
from tikhon.core.strength import stepwise
from tikhon.methods.domains.fishr import Fishr
from tikhon.methods.weights.l2 import L2
from tikhon.studies.colours import coloured_digits
from tikhon.studies.study import Expectation, Settings, Study


def methods(settings: Settings, domains: Tensor) -> list[Method]:
    """The paper's L2 in both arms; the penalty begins when 190 of 501 steps are done, as in its experiment."""
    strength = settings["strength"]
    penalty = [Fishr(domains, strength=stepwise({0.0: 0.0, 190 / 501: strength}))] if strength else []
    return [L2(2e-3), *penalty]


study = Study(
    question="Where the colour is reversed, is accuracy with Fishr 15 points above that of plain training?",
    setting="digits below and above 5, labels flipped in 25%, colour that agrees in 90% and 80%, at test in 10%; "
    "501 steps of Adam on all samples, L2; candidates chosen on the test domain, as in the paper",
    run=coloured_digits(methods, epochs=501, batch_size=2000, chosen="reversed"),
    arms={
        "none": [{"strength": 0.0, "learning_rate": rate} for rate in (1e-3, 3e-3, 3e-4)],
        "fishr": [{"strength": strength, "learning_rate": 1e-3} for strength in (1e3, 1e4, 1e5)],
    },
    expectations=[Expectation("fishr", "none", margin=0.15)],
)
