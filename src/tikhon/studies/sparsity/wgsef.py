"""Does the group envelope halve a network's units at no loss of accuracy?"""

from __future__ import annotations

from tikhon.studies.pruning import run
from tikhon.studies.study import Expectation, Study, plain, recipes

study = Study(
    question="Asked for half of the units, does training leave at most 55%, at a loss of at most one point?",
    setting="digits, MLP 64-256-256-10, 60 epochs, exported and physically pruned",
    run=run,
    arms={
        "none": plain(3),
        "wgsef": recipes("wgsef(strength=0.05)", "wgsef(strength=0.1)", "wgsef(strength=0.2)"),
    },
    expectations=[
        Expectation("wgsef", "none", "units", "lower", margin=0.45),
        Expectation("wgsef", "none", margin=-0.01),
    ],
)
