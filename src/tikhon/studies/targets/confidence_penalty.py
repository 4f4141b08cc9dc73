"""Does penalising confident predictions calibrate a network that has few samples, without costing accuracy?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With few samples, is a network whose confidence is penalised better calibrated, and no less accurate?",
    setting="MNIST-1D, 1,000 samples, MLP 40-256-256-10, 60 epochs",
    run=training(task={"source": "mnist1d", "train_size": 1000}, epochs=60),
    arms={
        "none": plain(3),
        "confidence_penalty": recipes(
            "confidence_penalty(strength=0.1)", "confidence_penalty(strength=0.3)", "confidence_penalty(strength=1.0)"
        ),
    },
    expectations=[
        Expectation("confidence_penalty", "none", "calibration_error", "lower"),
        Expectation("confidence_penalty", "none", margin=-0.01),
    ],
)
