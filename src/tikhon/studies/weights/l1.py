"""Does L1 keep a network from fitting wrong labels?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does a network with the penalty end above a plain one, with a smaller gap?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 120 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=120),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "l1": recipes("l1(strength=0.0001)", "l1(strength=0.0003)", "l1(strength=0.001)"),
    },
    expectations=[Expectation("l1", "none"), Expectation("l1", "none", "train", "lower")],
)
