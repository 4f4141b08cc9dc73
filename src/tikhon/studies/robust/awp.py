"""Does attacking the weights too narrow the gap between robust training and test accuracy?"""

from tikhon.studies.attacked import SETTING, rates, run
from tikhon.studies.study import Expectation, Study

ATTACK = "adversarial_training(radius=0.1, valid=(0.0, 1.0))"

study = Study(
    question="Is accuracy under attack higher when the weights are attacked too, and that of the training set lower?",
    setting=SETTING,
    run=run,
    arms={
        "none": rates("none"),
        "adversarial_training": rates(ATTACK),
        "awp": rates(f"{ATTACK}+awp(gamma=0.01)"),
    },
    expectations=[
        Expectation("awp", "adversarial_training", "robust"),
        Expectation("awp", "adversarial_training", "train", "lower"),
    ],
)
