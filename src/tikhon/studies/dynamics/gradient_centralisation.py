"""Does a network with centralised gradients generalise better?"""

from tikhon.studies.study import Expectation, Study, plain, training

study = Study(
    question="Is a network with batch norm more accurate with centralised gradients?",
    setting="MNIST-1D, MLP 40-256-256-10 with batch norm, 40 epochs",
    run=training(task={"source": "mnist1d"}, model="tikhon.studies.dynamics.ghost_bn:network", epochs=40),
    arms={
        "none": plain(2),
        "gradient_centralisation": plain(2, "gradient_centralisation"),
    },
    expectations=[Expectation("gradient_centralisation", "none")],
)
