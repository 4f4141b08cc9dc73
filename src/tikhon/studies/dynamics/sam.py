"""Does sharpness-aware minimisation generalise better, and resist label noise?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does SAM end above plain training, memorising less?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 120 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=120),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "sam": recipes("sam(radius=0.05)", "sam(radius=0.2)", "sam(radius=0.5)"),
    },
    expectations=[Expectation("sam", "none"), Expectation("sam", "none", "train", "lower")],
)
