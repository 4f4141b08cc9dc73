"""Reading batches and model outputs: where inputs, target, sample ids and the prediction are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tikhon.core.errors import TikhonError, near_misses

Place = str | Callable[[Any], Any] | None


def _find(batch: Any, place: str | Callable[[Any], Any], what: str) -> Any:
    if callable(place):
        return place(batch)
    if isinstance(batch, Mapping):
        if place not in batch:
            raise TikhonError(f"The batch has no {place!r} to be the {what}. {near_misses(place, map(str, batch))}")
        return batch[place]
    if hasattr(batch, place):
        return getattr(batch, place)
    raise TikhonError(f"{what}={place!r} is a key, but the batch is a {type(batch).__name__}, not a mapping.")


class Reading:
    """Splits what a loader gives into inputs, target and sample ids; where no label is needed, the target is None."""

    def __init__(self, inputs: Place, target: Place, index: Place, labelled: bool = True) -> None:
        self._inputs, self._target, self._index, self._labelled = inputs, target, index, labelled

    def read(self, batch: Any, target: Any, index: Any) -> tuple[Any, Any, Any]:
        if target is not None:
            return batch, target, index
        if not self._labelled:
            return self._without_labels(batch, index)
        if isinstance(batch, Mapping) or self._target is not None:
            return self._from_keys(batch, index)
        if isinstance(batch, (list, tuple)) and len(batch) == 2:
            return batch[0], batch[1], index
        if isinstance(batch, (list, tuple)) and len(batch) == 3:
            return batch[1], batch[2], batch[0]
        raise TikhonError(
            "recipe.loss needs inputs and target: recipe.loss(x, y), or a whole batch (x, y) or (index, x, y), or a "
            f"mapping with tk.Recipe(..., target='labels'); it got {type(batch).__name__} alone."
        )

    def _from_keys(self, batch: Any, index: Any) -> tuple[Any, Any, Any]:
        if self._target is None:
            raise TikhonError(
                f"The batch is a mapping with {', '.join(map(repr, batch))}: say which of them is the target, "
                "for example tk.Recipe(..., target='labels')."
            )
        target = _find(batch, self._target, "target")
        if self._inputs is None and not isinstance(batch, Mapping):
            raise TikhonError("Say where the inputs are in the batch: tk.Recipe(..., inputs=..., target=...).")
        return self._inputs_of(batch), target, self._index_of(batch, index)

    def _without_labels(self, batch: Any, index: Any) -> tuple[Any, None, Any]:
        if self._inputs is None and not isinstance(batch, (Mapping, Tensor)):
            raise TikhonError(
                "Without labels a batch is a tensor or a mapping of inputs. Say where these are in a "
                f"{type(batch).__name__}, for example tk.Recipe(..., inputs=lambda batch: batch[0])."
            )
        return self._inputs_of(batch), None, self._index_of(batch, index)

    def _inputs_of(self, batch: Any) -> Any:
        if self._inputs is not None:
            return _find(batch, self._inputs, "inputs")
        if not isinstance(batch, Mapping):
            return batch
        used = {self._target, self._index, "index"}
        return {key: value for key, value in batch.items() if key not in used}

    def _index_of(self, batch: Any, index: Any) -> Any:
        if index is None and self._index is not None:
            return _find(batch, self._index, "index")
        return batch.get("index") if index is None and isinstance(batch, Mapping) else index


def read_output(place: Place) -> Callable[[Any], Tensor]:
    """How to find the prediction in what the model returns. By a key: in a mapping, or else the tensor as it is."""
    if place is None:
        return lambda output: output
    if callable(place):
        return place
    return lambda output: output if isinstance(output, Tensor) else _find(output, place, "output")
