"""tikhon: regularisation for PyTorch.

Every method of the catalogue is an attribute of this package (`tikhon.MixUp`); it is imported when it is first used.
"""

from __future__ import annotations

from typing import Any

from tikhon import data as data
from tikhon.core.card import Card
from tikhon.core.catalogue import by_class
from tikhon.core.combine import During, OneOf
from tikhon.core.errors import TikhonError, near_misses
from tikhon.core.fit import History, fit
from tikhon.core.losses import ClassLoss, CustomLoss, Loss, ValueLoss
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Snapshot, Where, select
from tikhon.core.recipe import Recipe
from tikhon.core.step import Step
from tikhon.core.strength import Schedule, Strength, cosine, exponential, linear, stepwise
from tikhon.core.target import Part, Target
from tikhon.core.terms import Term, Terms

__version__ = "0.1.0"

__all__ = [
    "Card",
    "ClassLoss",
    "CustomLoss",
    "During",
    "History",
    "Loss",
    "Method",
    "OneOf",
    "Part",
    "PerSampleMemory",
    "Recipe",
    "Schedule",
    "Selected",
    "Snapshot",
    "Step",
    "Strength",
    "Target",
    "Term",
    "Terms",
    "TikhonError",
    "ValueLoss",
    "Where",
    "cosine",
    "data",
    "exponential",
    "fit",
    "linear",
    "select",
    "stepwise",
]


def __getattr__(name: str) -> Any:
    listing = by_class().get(name)
    if listing is None:
        hint = "" if name.startswith("_") else " " + near_misses(name, [*by_class(), *__all__])
        raise AttributeError(f"module 'tikhon' has no attribute {name!r}.{hint}")
    kind = listing.load()
    globals()[name] = kind
    return kind


def __dir__() -> list[str]:
    return sorted([*globals(), *by_class()])
