"""Does mask tuning adapt a network nearly as well as fine-tuning, and do dropped gradients make it forget less?"""

from __future__ import annotations

from tikhon.studies.experiment import Report
from tikhon.studies.rotation import SETTING, adapt, rates
from tikhon.studies.study import Expectation, Settings, Study


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Adapt a pretrained network to rotated digits. Measures: metric, kept, validation (see `Adapted`), and masked
    (share of weights that are zero)."""
    adapted = adapt(settings, seed, report)
    weights = [one for one in adapted.after.parameters() if one.ndim > 1]
    masked = sum(int((one == 0.0).sum()) for one in weights) / sum(one.numel() for one in weights)
    return {**adapted.measures, "masked": masked}


RATES = (1e-4, 3e-4, 1e-3)

study = Study(
    question="Adapted to rotated digits by few samples, is mask tuning within two points of fine-tuning with at most "
    "5% of the weights masked, and does it forget less than masks whose gradients are not dropped?",
    setting=SETTING,
    run=run,
    arms={
        "none": rates("none", *RATES),
        "masks": rates("mask_tuning(drop=0.0)", *RATES),
        "mask_tuning": rates("mask_tuning", *RATES),
    },
    expectations=[
        Expectation("mask_tuning", "none", margin=-0.02),
        Expectation("mask_tuning", "masks", "kept"),
        Expectation("mask_tuning", "none", "masked", "lower", margin=-0.05),
    ],
)
