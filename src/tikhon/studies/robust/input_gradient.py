"""Does a small input gradient make a network resist attacks?"""

from tikhon.studies.attacked import SETTING, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="Is accuracy under attack 10 points above that of plain training, with an input gradient penalty of 0.1 "
    "or 1, at a loss of clean accuracy of no more than a point?",
    setting=SETTING,
    run=run,
    arms={
        "none": rates("none"),
        "input_gradient": [{"recipe": f"input_gradient(strength={strength})"} for strength in (0.1, 1.0)],
    },
    expectations=[
        Expectation("input_gradient", "none", "robust", margin=0.1),
        Expectation("input_gradient", "none", margin=-0.01),
    ],
)
