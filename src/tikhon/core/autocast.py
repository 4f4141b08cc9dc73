"""Mixed precision: passes through a model run under the caller's autocast, what methods compute in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from tikhon.core.batches import map_tensors

HALF = (torch.float16, torch.bfloat16)

any_autocast = torch._C._is_any_autocast_enabled
"""Whether autocast is on for some kind of device: the one question that every step asks."""

_available = cache(torch.amp.is_autocast_available)


def autocast_on(kind: str) -> bool:
    """Whether autocast is on for this kind of device."""
    return _available(kind) and torch.is_autocast_enabled(kind)


def narrowed(value: Any) -> bool:
    """Whether a pass under autocast, which is on still, returned this in sixteen bits."""
    if isinstance(value, Tensor):
        return value.dtype in HALF and autocast_on(value.device.type)
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return any(map(narrowed, values))


def widened(value: Any) -> Any:
    """What was narrowed, in float32: methods compute in full precision."""
    return _widened(value) if isinstance(value, Tensor) else map_tensors(_widened, value)


def _widened(value: Tensor) -> Tensor:
    if value.dtype not in HALF:
        return value
    wide = value.float()
    vars(wide).update(vars(value))  # what a method's hook wrote on it belongs to it still
    return wide


class Precision:
    """Takes the caller's autocast off a training step and puts it on again for each pass through a model.

    Else autocast would narrow whatever a method multiplies, Gram matrices and rotations, to sixteen bits.
    """

    def __init__(self) -> None:
        self._caller: Callable[[], AbstractContextManager[Any]] | None = None
        self.dtype: torch.dtype | None = None
        """Of the caller's autocast; None without one."""

    def full(self, kind: str) -> AbstractContextManager[None]:
        """Inside, autocast is off on this kind of device, but for passes."""
        return self._full(kind) if autocast_on(kind) else nullcontext()

    @contextmanager
    def _full(self, kind: str) -> Iterator[None]:
        outer, dtype = (self._caller, self.dtype), torch.get_autocast_dtype(kind)
        self._caller, self.dtype = partial(torch.autocast, kind, dtype), dtype
        try:
            with torch.autocast(kind, enabled=False):
                yield
        finally:
            self._caller, self.dtype = outer

    @contextmanager
    def without(self) -> Iterator[None]:
        """Inside, passes too are in full precision."""
        outer, self._caller, self.dtype = (self._caller, self.dtype), None, None
        try:
            yield
        finally:
            self._caller, self.dtype = outer

    @property
    def plain(self) -> bool:
        """Whether no autocast is in force, nor taken off for the time being."""
        return self._caller is None and not any_autocast()

    def a_pass(self) -> AbstractContextManager[Any]:
        """Inside, autocast is as the caller set it."""
        if self._caller is None:
            return nullcontext()
        # Autocast keeps the narrowed weights until it ends, and does not see that a second pass has others.
        torch.clear_autocast_cache()
        return self._caller()
