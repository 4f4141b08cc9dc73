"""Queue: the latest rows seen in training, which enter when a step really happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.memory import Gather

Rows = tuple[Tensor, ...]


class Queue(nn.Module):
    """First in, first out: the last `size` rows of one or several tensors that belong together.

    `push` stages rows; `rows` holds those of steps that have happened, oldest first, and is shorter than `size` until
    as many came. As with a `PerSampleMemory`, staged rows are forgotten where a batch is refused or a step skipped.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.rows: Rows = ()
        self._staged: list[Rows] = []

    def __len__(self) -> int:
        return len(self.rows[0]) if self.rows else 0

    def push(self, *rows: Tensor) -> None:
        """Stage rows: tensors (B, ...) of equal length, as many as at every other push."""
        self._staged.append(tuple(one.detach() for one in rows))

    @property
    def staged(self) -> int:
        """How many pushes wait for the step."""
        return len(self._staged)

    def commit(self, gather: Gather | None = None) -> None:
        """The step happened: let in what is staged, from every rank."""
        if not self._staged:
            return
        new = tuple(map(torch.cat, zip(*self._staged, strict=True)))
        if gather is not None:
            new = tuple(map(gather, new))
        both = zip(self.rows, new, strict=True) if self.rows else ((one,) for one in new)
        self.rows = tuple(torch.cat(parts)[-self.size :] for parts in both)
        self._staged = []

    def rewind(self, writes: int) -> None:
        """Forget all but the first staged pushes: the step was skipped, or is evaluated again."""
        del self._staged[writes:]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Queue:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.rows = tuple(map(fn, self.rows))
        self._staged = [tuple(map(fn, rows)) for rows in self._staged]
        return self

    def get_extra_state(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "staged": [list(rows) for rows in self._staged]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.rows = tuple(one.clone() for one in state["rows"])
        self._staged = [tuple(one.clone() for one in rows) for rows in state["staged"]]
