"""tikhon: regularisation for PyTorch.

Every method of the catalogue is an attribute of this package (`tikhon.MixUp`). Everything is imported when it is first
used, so that `tikhon --help` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same as _HOMES, for editors and type checkers
    from tikhon import data as data
    from tikhon.core.card import Card as Card
    from tikhon.core.combine import During as During
    from tikhon.core.combine import OneOf as OneOf
    from tikhon.core.errors import Diverged as Diverged
    from tikhon.core.errors import TikhonError as TikhonError
    from tikhon.core.fit import History as History
    from tikhon.core.fit import fit as fit
    from tikhon.core.losses import ClassLoss as ClassLoss
    from tikhon.core.losses import CustomLoss as CustomLoss
    from tikhon.core.losses import Loss as Loss
    from tikhon.core.losses import ValueLoss as ValueLoss
    from tikhon.core.memory import PerSampleMemory as PerSampleMemory
    from tikhon.core.method import Method as Method
    from tikhon.core.parameters import Selected as Selected
    from tikhon.core.parameters import Snapshot as Snapshot
    from tikhon.core.parameters import Where as Where
    from tikhon.core.parameters import select as select
    from tikhon.core.recipe import Recipe as Recipe
    from tikhon.core.step import Step as Step
    from tikhon.core.strength import Schedule as Schedule
    from tikhon.core.strength import Strength as Strength
    from tikhon.core.strength import cosine as cosine
    from tikhon.core.strength import exponential as exponential
    from tikhon.core.strength import linear as linear
    from tikhon.core.strength import stepwise as stepwise
    from tikhon.core.target import Part as Part
    from tikhon.core.target import Target as Target
    from tikhon.core.terms import Term as Term
    from tikhon.core.terms import Terms as Terms

__version__ = "0.1.0"

_HOMES = {
    "Card": "card",
    "ClassLoss": "losses",
    "CustomLoss": "losses",
    "Diverged": "errors",
    "During": "combine",
    "History": "fit",
    "Loss": "losses",
    "Method": "method",
    "OneOf": "combine",
    "Part": "target",
    "PerSampleMemory": "memory",
    "Recipe": "recipe",
    "Schedule": "strength",
    "Selected": "parameters",
    "Snapshot": "parameters",
    "Step": "step",
    "Strength": "strength",
    "Target": "target",
    "Term": "terms",
    "Terms": "terms",
    "TikhonError": "errors",
    "ValueLoss": "losses",
    "Where": "parameters",
    "cosine": "strength",
    "exponential": "strength",
    "fit": "fit",
    "linear": "strength",
    "select": "parameters",
    "stepwise": "strength",
}

__all__ = ["data", *_HOMES]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):  # what interpreters and tools probe for
        raise AttributeError(f"module 'tikhon' has no attribute {name!r}.")
    if name == "data":
        return importlib.import_module("tikhon.data")
    value = _core(name) if name in _HOMES else _method(name)
    globals()[name] = value
    return value


def _core(name: str) -> Any:
    return getattr(importlib.import_module(f"tikhon.core.{_HOMES[name]}"), name)


def _method(name: str) -> Any:
    catalogue = importlib.import_module("tikhon.core.catalogue")
    listing = catalogue.by_class().get(name)
    if listing is None:
        near_misses = importlib.import_module("tikhon.core.errors").near_misses
        raise AttributeError(
            f"module 'tikhon' has no attribute {name!r}. {near_misses(name, [*catalogue.by_class(), *__all__])}"
        )
    return listing.load()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *importlib.import_module("tikhon.core.catalogue").by_class()})
