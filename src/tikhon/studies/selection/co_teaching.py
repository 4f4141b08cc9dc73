"""With wrong labels, does a network taught by a peer end above plain training and above early stopping?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, do two networks that choose samples for each other end above plain training and "
    "above early stopping, memorising less?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 60 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=60),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "co_teaching": recipes(
            "co_teaching(forget_rate=0.3)", "co_teaching(forget_rate=0.4)", "co_teaching(forget_rate=0.5)"
        ),
    },
    expectations=[
        Expectation("co_teaching", "none"),
        Expectation("co_teaching", "early_stopping"),
        Expectation("co_teaching", "none", "train", "lower"),
    ],
)
