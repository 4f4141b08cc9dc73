"""Does StableMax let a network go on learning where softmax stops, and generalise?"""

from tikhon.studies.grokking import rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="Without weight decay, does StableMax generalise on modular addition where softmax only memorises?",
    setting="addition modulo 23, 80% of the pairs, MLP 46-200-23, AdamW without decay, 4,000 steps in float32",
    run=run,
    arms={"none": rates("none"), "stablemax": rates("stablemax")},
    expectations=[Expectation("stablemax", "none")],
)
