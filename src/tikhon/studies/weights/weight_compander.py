"""Does companding the weights help a network that has few samples?"""

from tikhon.studies.study import Expectation, Study, plain, training

study = Study(
    question="With 300 samples, is a network with companded weights more accurate than a plain one?",
    setting="digits, 300 samples, MLP 64-256-256-10, 60 epochs",
    run=training(task={"source": "digits", "train_size": 300}, epochs=60),
    arms={
        "none": plain(3, rates=(0.1, 0.05, 0.02)),
        "weight_compander": [{"recipe": "weight_compander", "learning_rate": rate} for rate in (0.1, 0.05, 0.02)],
    },
    expectations=[Expectation("weight_compander", "none")],
)
