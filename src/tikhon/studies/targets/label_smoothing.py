"""Does label smoothing calibrate a network that has few samples, without costing accuracy?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With few samples, is a smoothed network better calibrated, and no less accurate, than a plain one?",
    setting="MNIST-1D, 1,000 samples, MLP 40-256-256-10, 60 epochs",
    run=training(task={"source": "mnist1d", "train_size": 1000}, epochs=60),
    arms={
        "none": plain(3),
        "label_smoothing": recipes(
            "label_smoothing(strength=0.05)", "label_smoothing", "label_smoothing(strength=0.2)"
        ),
    },
    expectations=[
        Expectation("label_smoothing", "none", "calibration_error", "lower"),
        Expectation("label_smoothing", "none", margin=-0.01),
    ],
)
