"""Batches as people have them: tensors, tuples, mappings and nests of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tikhon.core.errors import TikhonError


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """The same nest with `function` applied to every tensor; everything else is passed through."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def first_tensor(batch: Any) -> Tensor:
    """The first tensor of a nest; its first dimension is the batch."""
    if isinstance(batch, Tensor):
        return batch
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    for value in values:
        if isinstance(value, (Tensor, Mapping, list, tuple)):
            return first_tensor(value)
    raise TikhonError(f"The inputs hold no tensor: {type(batch).__name__}.")


def mix_inputs(mix: Callable[[Tensor], Tensor], inputs: Any, method: str) -> Any:
    """Apply `mix` to every floating-point tensor of the inputs; refuse inputs that have none."""
    mixed = 0

    def one(values: Tensor) -> Tensor:
        nonlocal mixed
        if not values.is_floating_point():
            return values
        mixed += 1
        return mix(values)

    result = map_tensors(one, inputs)
    if not mixed:
        raise TikhonError(
            f"{method} mixes floating-point inputs, and these have none (token ids cannot be averaged). "
            "Mix the embeddings instead: pass inputs= a callable that embeds."
        )
    return result


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """model(**mapping), model(*tuple) or model(tensor)."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (list, tuple)):
        return model(*inputs)
    return model(inputs)
