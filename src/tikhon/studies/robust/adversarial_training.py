"""Does training on attacked inputs make a network resist attacks?"""

from tikhon.studies.attacked import SETTING, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="Is accuracy under a strong attack 30 points above that of plain training, and with seven steps of attack "
    "in training no more than 2 points below that with one?",
    setting=SETTING,
    run=run,
    arms={
        "none": rates("none"),
        "one_step": rates("adversarial_training(radius=0.1, steps=1, step_size=1.25, valid=(0.0, 1.0))"),
        "adversarial_training": rates("adversarial_training(radius=0.1, valid=(0.0, 1.0))"),
    },
    expectations=[
        Expectation("adversarial_training", "none", "robust", margin=0.3),
        Expectation("adversarial_training", "one_step", "robust", margin=-0.02),
    ],
)
