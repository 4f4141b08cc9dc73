"""On a long tail of classes, is a network trained with the focal loss more accurate, and better calibrated?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="Where the rarest class has a fiftieth of the commonest one's samples, does focusing on hard samples give "
    "better accuracy on all classes alike, and better calibration?",
    setting="digits, long tail of 50 to 1, balanced test, MLP 64-256-256-10, 60 epochs",
    run=training(task={"source": "digits", "imbalance": 50.0}, epochs=60),
    arms={
        "none": plain(3),
        "focal_loss": recipes("focal_loss(gamma=1.0)", "focal_loss(gamma=2.0)", "focal_loss(gamma=5.0)"),
    },
    expectations=[
        Expectation("focal_loss", "none"),
        Expectation("focal_loss", "none", "calibration_error", "lower"),
    ],
)
