"""With wrong labels, does generalised cross-entropy end above plain training and above early stopping?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does generalised cross-entropy end above cross-entropy and above early stopping, "
    "memorising less?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 60 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=60),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "gce": recipes("gce(q=0.5)", "gce(q=0.7)", "gce(q=0.9)"),
    },
    expectations=[
        Expectation("gce", "none"),
        Expectation("gce", "early_stopping"),
        Expectation("gce", "none", "train", "lower"),
    ],
)
