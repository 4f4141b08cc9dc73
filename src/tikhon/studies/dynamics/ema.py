"""Is the average of the weights better than the last weights?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, is the average of the weights more accurate than the last weights?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 120 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=120),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "ema": recipes("ema(decay=0.9)", "ema(decay=0.99)", "ema(decay=0.999)"),
    },
    expectations=[Expectation("ema", "none")],
)
