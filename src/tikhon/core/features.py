"""Features: what goes into a module of the model, by default into its classifier, as one row a sample."""

from __future__ import annotations

from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.parameters import find_module, last_linear


def place_of(model: nn.Module, at: str | None, method: str) -> str:
    """`at`, or where that is None the name of the last `nn.Linear`, by convention the classifier."""
    return last_linear(model, method) if at is None else at


def check_place(model: nn.Module, at: str | None, method: str, linear: bool = False) -> None:
    """Refuse a model that has no module `at`, or none that is linear where that is needed."""
    place = place_of(model, at, method)
    if not isinstance(find_module(model, place, method), nn.Linear) and linear:
        raise TikhonError(f"{method} acts on a linear classifier, and {place!r} is none: name it with at=.")


def rows_before(features: object, rows: int, method: str) -> Tensor:
    """What went into a module as one row a sample, (B, D): of several masks a sample (M * B, D), the mean."""
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) % max(rows, 1):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise TikhonError(f"{method} reads features ({rows}, D), one row a sample; these are {shape}. Choose at=.")
    return features if len(features) == rows else features.reshape(-1, rows, features.shape[1]).mean(0)
