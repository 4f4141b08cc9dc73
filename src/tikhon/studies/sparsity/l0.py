"""Does a price on open gates make a network smaller as it trains, at no loss of accuracy?"""

from __future__ import annotations

from tikhon.studies.pruning import run
from tikhon.studies.study import Expectation, Study, plain, recipes

study = Study(
    question="With a price on open gates, is the exported network left with at most 70% of its units and half of its "
    "parameters, at a loss of at most one point of accuracy?",
    setting="digits, MLP 64-256-256-10, 60 epochs, exported and physically pruned",
    run=run,
    arms={
        "none": plain(3),
        # The paper's price is 0.1 by the number of samples, 1e-4 here, and there it is a fraction of the task's loss.
        "l0": recipes("l0(strength=1e-5)", "l0(strength=3e-5)", "l0(strength=1e-4)"),
    },
    expectations=[
        Expectation("l0", "none", "units", "lower", margin=0.3),
        Expectation("l0", "none", "parameters", "lower", margin=0.5),
        Expectation("l0", "none", margin=-0.01),
    ],
)
