"""Does SaRA adapt a network nearly as well as fine-tuning all of it, and forget less?"""

from __future__ import annotations

import torch
from torch import nn

from tikhon.studies.experiment import Report
from tikhon.studies.rotation import SETTING, adapt, rates
from tikhon.studies.study import Expectation, Settings, Study


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Adapt a pretrained network to rotated digits. Measures: metric, kept, validation (see `Adapted`), and rank (sum
    of the singular values of the hidden matrices' updates over the largest one, their mean)."""
    adapted = adapt(settings, seed, report)
    layers = zip(adapted.before.modules(), adapted.after.modules(), strict=True)
    ranks = []
    for before, after in layers:
        if isinstance(before, nn.Linear) and isinstance(after, nn.Linear) and before.out_features == 256:
            singular = torch.linalg.svdvals((after.weight - before.weight).detach())
            ranks.append(float(singular.sum() / singular[0].clamp_min(1e-12)))
    return {**adapted.measures, "rank": sum(ranks) / len(ranks)}


RATES = (1e-3, 3e-3, 1e-2)

study = Study(
    question="Adapted to rotated digits by few samples with the smallest fifth of the weights, is accuracy within two "
    "points of fine-tuning all, is less forgotten, and does the nuclear norm lower the rank of the updates?",
    setting=SETTING,
    run=run,
    arms={
        "none": rates("none", *RATES),
        "no_norm": rates("sara(share=0.2, strength=0.0)", *RATES),
        "sara": rates("sara(share=0.2)", *RATES),
    },
    expectations=[
        Expectation("sara", "none", margin=-0.02),
        Expectation("sara", "none", "kept"),
        Expectation("sara", "no_norm", "rank", "lower"),
    ],
)
