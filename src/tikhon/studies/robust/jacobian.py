"""Does a small Jacobian make a network resist attacks and noise?"""

from tikhon.studies.attacked import SETTING, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="Is accuracy under attack 10 points above that of plain training with a Jacobian penalty, under noise "
    "higher too, at a loss of clean accuracy of no more than a point?",
    setting=SETTING,
    run=run,
    arms={
        "none": rates("none"),
        "jacobian": [{"recipe": f"jacobian(strength={strength})"} for strength in (0.01, 0.1)],
    },
    expectations=[
        Expectation("jacobian", "none", "robust", margin=0.1),
        Expectation("jacobian", "none", "noisy"),
        Expectation("jacobian", "none", margin=-0.01),
    ],
)
