"""Does clipping of single entries let a recurrent network with exploding gradients learn more?"""

from tikhon.studies.recurrent import rates
from tikhon.studies.study import Expectation, Study, training

study = Study(
    question="Is a recurrent network more accurate with every entry of its gradient clipped at 0.1, each with the best "
    "of three learning rates?",
    setting="MNIST-1D read value by value, 40 steps, 32 ReLU units that begin as identity, 20 epochs",
    run=training(task={"source": "mnist1d"}, model="tikhon.studies.recurrent:network", epochs=20),
    arms={"none": rates("none"), "clip_grad_value": rates("clip_grad_value(max_value=0.1)")},
    expectations=[Expectation("clip_grad_value", "none")],
)
