"""Do a network's own earlier predictions, as targets, improve calibration and accuracy?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="Is a network that learns from its own earlier predictions better calibrated, and no less accurate?",
    setting="MNIST-1D, 1,000 samples, MLP 40-256-256-10, 60 epochs",
    run=training(task={"source": "mnist1d", "train_size": 1000}, epochs=60),
    arms={
        "none": plain(3),
        "ps_kd": recipes(
            'ps_kd(alpha=linear(0.0, 0.4, by="epoch"))',
            'ps_kd(alpha=linear(0.0, 0.8, by="epoch"))',
            'ps_kd(alpha=linear(0.0, 0.9, by="epoch"))',
        ),
    },
    expectations=[
        Expectation("ps_kd", "none", "calibration_error", "lower"),
        Expectation("ps_kd", "none", margin=-0.01),
    ],
)
