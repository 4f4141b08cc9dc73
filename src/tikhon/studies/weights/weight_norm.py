"""Does a network whose weights are lengths times directions learn more in the same few epochs?"""

from tikhon.studies.study import Expectation, Study, plain, training

RATES = (0.1, 0.05, 0.2)

study = Study(
    question="After ten epochs, does a network with normalised weights fit its training data better than a plain one, "
    "and is it more accurate on test data?",
    setting="mnist1d, MLP 40-256-256-10 without batch norm, 10 epochs",
    run=training(task={"source": "mnist1d"}, epochs=10),
    arms={
        "none": plain(3, rates=RATES),
        "weight_norm": [{"recipe": "weight_norm", "learning_rate": rate} for rate in RATES],
    },
    expectations=[Expectation("weight_norm", "none", "train"), Expectation("weight_norm", "none")],
)
