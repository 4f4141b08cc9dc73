"""tikhon: regularisation for PyTorch.

Every entry of the catalogue is an attribute of this package (`tikhon.MixUp`), and so is everything that measures
(`tikhon.expected_calibration_error`). Each is imported when it is first used, so that `tikhon --help` need not wait for
torch. `__init__.pyi` says the same to type checkers: `make stubs`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Card": "card",
    "ClassLoss": "losses",
    "CustomLoss": "losses",
    "Diverged": "errors",
    "During": "combine",
    "History": "fit",
    "Learned": "strength",
    "Loss": "losses",
    "Method": "method",
    "OneOf": "combine",
    "OutputLoss": "losses",
    "Part": "target",
    "PerSampleMemory": "memory",
    "Queue": "queue",
    "Recipe": "recipe",
    "Schedule": "strength",
    "Selected": "parameters",
    "Snapshot": "parameters",
    "Step": "step",
    "StepMean": "step_mean",
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
    "logistic": "strength",
    "no_loss": "losses",
    "select": "parameters",
    "stepwise": "strength",
}

_REPORTS = {"Doctor": "doctor", "Patient": "patient", "examine": "checkup"}

__all__ = ["data", *_HOMES, *_REPORTS]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):  # what interpreters and tools probe for
        raise AttributeError(f"module 'tikhon' has no attribute {name!r}.")
    if name == "data":
        return importlib.import_module("tikhon.data")
    if name in _HOMES:
        value = _named(f"core.{_HOMES[name]}", name)
    elif name in _REPORTS:
        value = _named(f"report.{_REPORTS[name]}", name)
    else:
        value = _found(name)
    globals()[name] = value
    return value


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"tikhon.{module}"), name)


def _found(name: str) -> Any:
    catalogue = importlib.import_module("tikhon.core.catalogue")
    if name in catalogue.by_class():
        return catalogue.by_class()[name].load()
    if name in catalogue.measures():
        return getattr(importlib.import_module(catalogue.measures()[name]), name)
    near_misses = importlib.import_module("tikhon.core.errors").near_misses
    known = [*catalogue.by_class(), *catalogue.measures(), *__all__]
    raise AttributeError(f"module 'tikhon' has no attribute {name!r}. {near_misses(name, known)}")


def __dir__() -> list[str]:
    catalogue = importlib.import_module("tikhon.core.catalogue")
    return sorted({*globals(), *__all__, *catalogue.by_class(), *catalogue.measures()})
