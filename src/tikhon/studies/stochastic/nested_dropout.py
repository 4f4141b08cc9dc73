"""Do compressed features resist wrong labels?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does nested dropout end at least 5 points above plain training?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 120 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=120),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "nested_dropout": recipes(
            "nested_dropout(scale=10.0)", "nested_dropout(scale=30.0)", "nested_dropout(scale=100.0)"
        ),
    },
    expectations=[Expectation("nested_dropout", "none", margin=0.05)],
)
