"""With fifty labels, what do a thousand further digits without labels teach?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tikhon.core.method import Method
from tikhon.methods.targets.fix_match import FixMatch
from tikhon.studies.semi_supervised import STRONG, WEAK, semi_supervised
from tikhon.studies.study import Expectation, Study


def _methods(unlabelled: Tensor, settings: Mapping[str, Any]) -> list[Method]:
    if "threshold" not in settings:
        return []
    return [FixMatch(unlabelled, threshold=settings["threshold"], weak=WEAK, strong=STRONG)]


RATES = (0.05, 0.02)

study = Study(
    question="With five labels a class, is FixMatch on all other inputs more accurate than training on the labels "
    "alone, in weak or in strong views, and does its threshold matter?",
    setting="digits, 50 labels and 1,035 inputs, MLP 64-256-256-10, 250 steps of 25 labelled and 175 other inputs",
    run=semi_supervised(_methods),
    arms={
        "none": [{"learning_rate": rate} for rate in RATES],
        "strong views": [{"learning_rate": rate, "view": "strong"} for rate in RATES],
        "without threshold": [{"learning_rate": rate, "threshold": 0.0} for rate in RATES],
        "fix_match": [{"learning_rate": rate, "threshold": 0.95} for rate in RATES],
    },
    expectations=[
        Expectation("fix_match", "none"),
        Expectation("fix_match", "strong views"),
        Expectation("fix_match", "without threshold"),
    ],
)
