"""With wrong labels, does symmetric cross-entropy end above plain training and above early stopping?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does symmetric cross-entropy end above cross-entropy and above early stopping, "
    "memorising less?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 60 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=60),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "sce": recipes("sce(alpha=0.1, beta=1.0)", "sce(alpha=0.5, beta=1.0)", "sce(alpha=0.1, beta=2.0)"),
    },
    expectations=[
        Expectation("sce", "none"),
        Expectation("sce", "early_stopping"),
        Expectation("sce", "none", "train", "lower"),
    ],
)
