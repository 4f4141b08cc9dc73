"""Per-sample memory: one row for each training sample, or a few of a method's own, written when a step happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError

Gather = Callable[[Tensor], Tensor]
"""Concatenates a tensor of every rank along dimension 0; the identity in one process."""


@runtime_checkable
class Staged(Protocol):
    """State whose writes wait for the step to happen, and are forgotten where it does not."""

    @property
    def staged(self) -> int:
        """How many writes wait."""

    def commit(self, gather: Gather | None = None) -> None:
        """The step happened."""

    def rewind(self, writes: int) -> None:
        """Forget all but the first `writes` that wait."""


class PerSampleMemory(nn.Module):
    """A table (samples, ...) on the model's device.

    rows: how many rows there are where they are no samples', such as 1 for a running mean; None is one a sample.

    `write` stages rows: this step's `read` sees them, the table does not hold them before `commit`. Of repeated ids
    the last wins. A row that is not finite is never staged. No operation synchronises with the host.
    """

    def __init__(self, rows: int | None = None) -> None:
        super().__init__()
        self.samples = rows or 0
        self._per_sample = rows is None
        self.table: Tensor | None
        self.register_buffer("table", None, persistent=False)  # its shape is not known before the state is read
        self._ids: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._slot: Tensor | None = None  # (samples,) which staged row holds for a sample; -1: none

    def reserve(self, samples: int) -> None:
        """Say how many samples there are; the width follows from the first rows written."""
        if self._per_sample:
            self.samples = samples

    def _allocate(self, row: Tensor) -> None:
        self.table = torch.zeros(self.samples, *row.shape[1:], dtype=row.dtype, device=row.device)

    def _slots(self, device: torch.device) -> Tensor:
        if self._slot is None or self._slot.device != device:
            self._slot = torch.full((self.samples,), -1, dtype=torch.int64, device=device)
        return self._slot

    def write(self, ids: Tensor, rows: Tensor) -> None:
        """Stage rows (B, ...) for ids (B,)."""
        rows = rows.detach()
        if self.table is None:
            self._allocate(rows)
        assert self.table is not None
        if self.table.shape[1:] != rows.shape[1:]:
            raise TikhonError(f"Rows of shape {tuple(rows.shape[1:])} do not fit {tuple(self.table.shape[1:])}.")
        if len(ids):
            self._stage(ids, rows.to(self.table.dtype))

    def _stage(self, ids: Tensor, rows: Tensor) -> None:
        start = sum(map(len, self._ids))
        place = torch.arange(start, start + len(ids), device=ids.device)
        finite = (rows.reshape(len(rows), -1) * 0.0).sum(1) == 0.0  # NaN where one is not; a sum of rows may overflow
        # Later rows have the larger place, so the greatest place is the last row written: no order of writes matters.
        self._slots(ids.device).scatter_reduce_(0, ids, torch.where(finite, place, -1), "amax")
        self._ids.append(ids)
        self._rows.append(rows)

    def read(self, ids: Tensor, like: Tensor | None = None) -> Tensor:
        """Rows (B, ...) as this step sees them: staged where there are any, else the table's, which begins with zeros.

        like: rows of the shape and dtype that will be written, so that the first read can come before the first write.
        """
        if self.table is None and like is not None:
            self._allocate(like)
        if self.table is None:
            raise TikhonError("This memory was read before anything was written to it.")
        rows = self.table.index_select(0, ids)
        if not self._ids:
            return rows
        slot = self._slots(ids.device).index_select(0, ids)
        staged = _joined(self._rows).index_select(0, slot.clamp_min(0))
        return torch.where((slot >= 0).reshape(-1, *[1] * (rows.ndim - 1)), staged, rows)

    @property
    def staged(self) -> int:
        """How many writes wait for the step."""
        return len(self._ids)

    def commit(self, gather: Gather | None = None) -> None:
        """The step happened: move what is staged into the table, from every rank."""
        if gather is not None and self._ids:
            ids, rows = gather(torch.cat(self._ids)), gather(torch.cat(self._rows))
            self.rewind(0)
            self._stage(ids, rows)
        if not self._ids:
            return
        assert self.table is not None
        ids = _joined(self._ids)
        self.table.index_copy_(0, ids, self.read(ids))  # of an id that is repeated, the same row each time
        self.rewind(0)

    def rewind(self, writes: int) -> None:
        """Forget all but the first `writes` staged writes: the step was skipped, or is evaluated again."""
        if len(self._ids) <= writes:
            return
        kept = list(zip(self._ids[:writes], self._rows[:writes], strict=True))
        self._slots(self._ids[0].device).index_fill_(0, _joined(self._ids), -1)
        self._ids, self._rows = [], []
        for ids, rows in kept:
            self._stage(ids, rows)

    def get_extra_state(self) -> dict[str, Any]:
        return {"samples": self.samples, "table": self.table, "ids": list(self._ids), "rows": list(self._rows)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if self.samples and state["samples"] != self.samples:
            raise TikhonError(
                f"The saved memory has {state['samples']} samples, this one {self.samples}: another data set?"
            )
        self.samples = state["samples"]
        self.rewind(0)
        if state["table"] is None:
            self.table = None
            return
        device = state["table"].device if self.table is None else self.table.device
        self.table = state["table"].to(device, copy=True)
        for ids, rows in zip(state["ids"], state["rows"], strict=True):
            self._stage(ids.to(device), rows.to(device))


def _joined(writes: list[Tensor]) -> Tensor:
    """One after another; most steps write once, and need no copy."""
    return writes[0] if len(writes) == 1 else torch.cat(writes)
