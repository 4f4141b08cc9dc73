"""Pool: further inputs, without labels or of another domain, from which a method draws rows of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.step import Step


class Dataset(Protocol):
    """What torch calls a map-style dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Pool:
    """Inputs beside those that the loop trains on; the caller's data, given again on resume, not a method's state.

    inputs: a tensor (M, ...), or a map-style dataset of inputs of one shape, or of tuples that begin with the input;
    method: who asks, for errors. Raises `TikhonError` where there are none.
    """

    def __init__(self, inputs: Tensor | Dataset, method: str) -> None:
        if not (hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")):
            raise TikhonError(
                f"{method} draws further inputs from a tensor (M, ...) or a map-style dataset, "
                f"not from {type(inputs).__name__}."
            )
        if (isinstance(inputs, Tensor) and inputs.ndim == 0) or not len(inputs):
            raise TikhonError(f"{method} was given no further inputs to draw from.")
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def draw(self, count: int, step: Step, device: torch.device) -> Tensor:
        """`count` rows, (count, ...) on `device`, drawn with replacement by the method's own generator."""
        index = torch.randint(len(self.inputs), (count,), generator=step.generator())
        if isinstance(self.inputs, Tensor):
            return self.inputs[index.to(self.inputs.device)].to(device, non_blocking=True)
        rows = [_input_of(self.inputs[one]) for one in index.tolist()]
        return torch.stack(rows).to(device, non_blocking=True)


def _input_of(item: Any) -> Tensor:
    first = item[0] if isinstance(item, Sequence) else item
    if not isinstance(first, Tensor):
        raise TikhonError(
            f"A further input must be a tensor, or the first of a tuple, not {type(first).__name__}. "
            "Convert it in the dataset, for example with a transform."
        )
    return first
