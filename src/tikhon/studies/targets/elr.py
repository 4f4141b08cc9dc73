"""Does ELR keep a network from memorising wrong labels, and is it better than stopping early?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does ELR end above plain training and above early stopping, memorising less?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 120 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=120),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "elr": recipes("elr(strength=1.0)", "elr(strength=3.0)", "elr(strength=7.0, momentum=0.9)"),
    },
    expectations=[
        Expectation("elr", "none"),
        Expectation("elr", "early_stopping"),
        Expectation("elr", "none", "train", "lower"),
    ],
)
