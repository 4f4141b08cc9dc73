"""Does MixUp resist corrupt labels?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does MixUp end above plain training, memorising less?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 120 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=120),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "mixup": recipes("mixup(alpha=0.4)", "mixup(alpha=1.0)", "mixup(alpha=8.0)"),
    },
    expectations=[Expectation("mixup", "none"), Expectation("mixup", "none", "train", "lower")],
)
