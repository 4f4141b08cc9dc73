"""Does a noisy code before the classifier generalise better, and with less confidence in what is wrong?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="On 1,000 images, is a network with a variational bottleneck more accurate than plain training, and "
    "better calibrated?",
    setting="MNIST, 1,000 samples, MLP 784-256-256-10, 20 epochs",
    run=training(task={"source": "mnist5k", "train_size": 1000}, epochs=20),
    arms={
        "none": plain(3),
        "vib": recipes("vib(strength=0.0001)", "vib(strength=0.001)", "vib(strength=0.01)"),
    },
    expectations=[
        Expectation("vib", "none"),
        Expectation("vib", "none", "calibration_error", "lower"),
    ],
)
