"""Does a network generalise once its gradients can no longer merely scale the logits?"""

from tikhon.studies.grokking import rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="Without weight decay, does PerpGrad generalise on modular addition where plain training only memorises?",
    setting="addition modulo 23, 80% of the pairs, MLP 46-200-23, AdamW without decay, 4,000 steps in float32",
    run=run,
    arms={"none": rates("none"), "perp_grad": rates("perp_grad")},
    expectations=[Expectation("perp_grad", "none")],
)
