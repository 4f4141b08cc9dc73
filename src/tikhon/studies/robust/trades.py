"""Does TRADES resist attacks at less loss of clean accuracy than training on attacked inputs alone?"""

from tikhon.studies.attacked import SETTING, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="Is accuracy under attack with TRADES 30 points above plain training, no more than 2 below adversarial "
    "training, and clean accuracy no lower than adversarial training's?",
    setting=SETTING,
    run=run,
    arms={
        "none": rates("none"),
        "adversarial_training": rates("adversarial_training(radius=0.1, valid=(0.0, 1.0))"),
        "trades": rates("trades(beta=6.0, radius=0.1, valid=(0.0, 1.0))"),
    },
    expectations=[
        Expectation("trades", "none", "robust", margin=0.3),
        Expectation("trades", "adversarial_training", "robust", margin=-0.02),
        Expectation("trades", "adversarial_training"),
    ],
)
