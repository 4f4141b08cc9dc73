"""Can nine of ten weights go without loss, when the smallest are pruned as the network trains?"""

from __future__ import annotations

from tikhon.studies.pruning import run
from tikhon.studies.study import Expectation, Study, plain


def _pruning(rate: float, sparsity: float) -> dict[str, object]:
    return {"recipe": f"magnitude_pruning(sparsity={sparsity})", "learning_rate": rate}


RATES = (0.1, 0.05, 0.2)

study = Study(
    question="Of nine of ten weights pruned during training, is accuracy at most one point lower than with all, and is "
    "it higher than with 99 of 100 pruned?",
    setting="digits, MLP 64-256-256-10, 60 epochs, the smallest magnitudes of all layers together",
    run=run,
    arms={
        "none": plain(3, rates=RATES),
        "90% pruned": [_pruning(rate, 0.9) for rate in RATES],
        "99% pruned": [_pruning(rate, 0.99) for rate in RATES],
    },
    expectations=[
        Expectation("90% pruned", "none", margin=-0.01),
        Expectation("90% pruned", "none", "nonzero", "lower", margin=0.88),
        Expectation("90% pruned", "99% pruned"),
    ],
)
