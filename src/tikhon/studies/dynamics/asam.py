"""Does adaptive sharpness-aware minimisation generalise better, and resist label noise?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does ASAM end above plain training, memorising less, and no more than a point "
    "below SAM?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 60 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=60),
    arms={
        "none": plain(3),
        "sam": recipes("sam(radius=0.05)", "sam(radius=0.2)", "sam(radius=0.5)"),
        "asam": recipes("asam(radius=0.5)", "asam(radius=2.0)", "asam(radius=5.0)"),
    },
    expectations=[
        Expectation("asam", "none"),
        Expectation("asam", "none", "train", "lower"),
        Expectation("asam", "sam", margin=-0.01),
    ],
)
