"""With fifty labels, what does agreeing with an averaged teacher on a thousand further digits teach?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tikhon.core.method import Method
from tikhon.methods.dynamics.ema import EMA
from tikhon.methods.targets.mean_teacher import MeanTeacher
from tikhon.studies.semi_supervised import STRONG, semi_supervised
from tikhon.studies.study import Expectation, Study


def _methods(unlabelled: Tensor, settings: Mapping[str, Any]) -> list[Method]:
    if "strength" not in settings:
        return [EMA(decay=0.99)] if settings.get("ema") else []
    return [MeanTeacher(unlabelled, strength=settings["strength"], decay=0.99, count=175, view=STRONG)]


def _plain(**settings: object) -> list[dict[str, object]]:
    return [{"learning_rate": rate, **settings} for rate in (0.05, 0.02)]


study = Study(
    question="With five labels a class, is a mean teacher on all other inputs more accurate than training on the "
    "labels alone, also with the same views of them, and than the averaged weights alone?",
    setting="digits, 50 labels and 1,035 inputs, MLP 64-256-256-10, 250 steps of 25 labelled and 175 other inputs",
    run=semi_supervised(_methods),
    arms={
        "none": _plain(),
        "strong views": _plain(view="strong"),
        "ema": _plain(ema=True),
        "mean_teacher": [{"learning_rate": 0.05, "strength": strength} for strength in (10.0, 100.0)],
    },
    expectations=[
        Expectation("mean_teacher", "none"),
        Expectation("mean_teacher", "strong views"),
        Expectation("mean_teacher", "ema"),
    ],
)
