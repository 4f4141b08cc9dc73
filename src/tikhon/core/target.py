"""Targets: what the output is asked to fit, through any mixing, distilling and smoothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from tikhon.core.batches import first_tensor
from tikhon.core.errors import TikhonError


def rows_alone(inputs: Any) -> Tensor:
    """What stands for the labels where there are none: how many samples there are, (B, 0)."""
    first = first_tensor(inputs)
    return first.new_empty(len(first), 0)


@dataclass(frozen=True, eq=False)
class Part:
    """One source sample for each row of the batch.

    value: (B, ...) class indices, probabilities (B, K) or values; ids: (B,) sample ids or None; weight: (B,) sample
    weights or None; share: what part of the row is this sample, a float or (B,).
    """

    value: Tensor
    ids: Tensor | None = None
    weight: Tensor | None = None
    share: float | Tensor = 1.0

    def dense(self, classes: int) -> Tensor:
        """The value as probabilities (B, K, ...)."""
        if self.value.is_floating_point():
            return self.value
        return self.added_to(_rows(self.value, classes, torch.get_default_dtype(), 0.0), 1.0)

    def added_to(self, rows: Tensor, amount: float | Tensor) -> Tensor:
        """`amount` of the value's probabilities, added in place to rows (B, K, ...); amount: a number, (), or (B,)."""
        if isinstance(amount, Tensor) and amount.ndim:
            amount = amount.reshape(-1, *[1] * (rows.ndim - 1))
        if self.value.is_floating_point():
            return rows.add_(self.value * amount)
        places = self.value.unsqueeze(1)
        if isinstance(amount, Tensor):
            amounts = amount.to(rows).expand(places.shape)
        else:
            amounts = torch.full_like(places, amount, dtype=rows.dtype)
        try:
            return rows.scatter_add_(1, places, amounts)
        except RuntimeError:  # torch looks at every label on the CPU
            if int(self.value.min()) >= 0:
                raise
            raise TikhonError(
                "Some labels are to be ignored, and a label to be ignored has no probabilities: leave these samples "
                "out of the batch, or leave out the method that softens targets."
            ) from None

    def mass(self) -> float | Tensor:
        """share * weight: a float or (B,)."""
        return self.share if self.weight is None else self.share * self.weight

    def _permuted(self, permutation: Tensor, share: float | Tensor) -> Part:
        def pick(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.index_select(0, permutation)

        own = self.share.index_select(0, permutation) if isinstance(self.share, Tensor) else self.share
        return Part(self.value.index_select(0, permutation), pick(self.ids), pick(self.weight), own * share)


@dataclass(frozen=True, eq=False)
class Target:
    """What the output is asked to fit. Frozen: every operation returns a new target.

    The first part is the row's own sample. Smoothing is kept aside and applied last, and mixing permutes ids and
    weights too, so that mixing, distilling and smoothing commute.
    """

    parts: tuple[Part, ...]
    smoothing: float = 0.0

    @classmethod
    def of(cls, value: Tensor, ids: Tensor | None = None, weight: Tensor | None = None) -> Target:
        return cls((Part(value, ids, weight),))

    def __len__(self) -> int:
        return len(self.parts[0].value)

    @property
    def plain(self) -> bool:
        """One unweighted sample a row, not smoothed: a loss may use its fused form."""
        return len(self.parts) == 1 and self.smoothing == 0.0 and self.alike

    @property
    def alike(self) -> bool:
        """No row is weighted or mixed otherwise than the next: a loss may be averaged before it is mixed."""
        return all(part.weight is None and isinstance(part.share, float) for part in self.parts)

    @property
    def value(self) -> Tensor:
        """The value of each row's own sample."""
        return self.parts[0].value

    @property
    def ids(self) -> Tensor | None:
        """The id of each row's own sample, (B,)."""
        return self.parts[0].ids

    @property
    def dominant(self) -> Tensor:
        """The value of the part that is most of its row, the own sample where shares are equal; (B, ...)."""
        if len(self.parts) == 1:
            return self.value
        shares = [part.share * torch.ones(len(self), device=self.value.device) for part in self.parts]
        values = torch.stack([part.value for part in self.parts])
        return values[torch.stack(shares).argmax(0), torch.arange(len(self), device=self.value.device)]

    def mix(self, permutation: Tensor, share: float | Tensor) -> Target:
        """Row i becomes `share` of itself and `1 - share` of row `permutation[i]`; share: a float or (B,)."""
        kept = tuple(Part(part.value, part.ids, part.weight, part.share * share) for part in self.parts)
        partners = tuple(part._permuted(permutation, 1.0 - share) for part in self.parts)
        return Target(kept + partners, self.smoothing)

    def smooth(self, amount: float) -> Target:
        """Spread `amount` of the probability evenly over all classes (Szegedy et al. 2016)."""
        return Target(self.parts, 1.0 - (1.0 - self.smoothing) * (1.0 - amount))

    def distil(self, of_part: Callable[[Part], Tensor], amount: float, classes: int) -> Target:
        """Replace `amount` of each part by the probabilities (B, K) that `of_part` gives for it."""

        def taught(part: Part) -> Part:
            value = part.added_to(amount * of_part(part), 1.0 - amount)
            return Part(value, part.ids, part.weight, part.share)

        return Target(tuple(map(taught, self.parts)), self.smoothing)

    def weighted(self, weight: Tensor) -> Target:
        """Multiply the weight of every row's own sample by `weight` (B,), before any mixing."""
        return replace(
            self,
            parts=tuple(
                replace(part, weight=weight if part.weight is None else part.weight * weight) for part in self.parts
            ),
        )

    def repeat(self, times: int) -> Target:
        """The whole batch `times` times over, for methods that evaluate several outputs a sample."""

        def again(values: Tensor) -> Tensor:
            return values.repeat(times, *[1] * (values.ndim - 1))

        return replace(
            self,
            parts=tuple(
                Part(
                    again(part.value),
                    None if part.ids is None else again(part.ids),
                    None if part.weight is None else again(part.weight),
                    again(part.share) if isinstance(part.share, Tensor) and part.share.ndim else part.share,
                )
                for part in self.parts
            ),
        )

    def lookup(self, table: Callable[[Tensor], Tensor]) -> Tensor:
        """Rows of a per-sample table, mixed as the target is: sum of share * table(ids), (B, ...)."""
        rows = []
        for part in self.parts:
            assert part.ids is not None, "the recipe refuses methods that need sample ids before this"
            found = table(part.ids)
            share = part.share
            rows.append(found * (share.reshape(-1, *[1] * (found.ndim - 1)) if isinstance(share, Tensor) else share))
        return reduce(add, rows)

    def dense(self, classes: int, dtype: torch.dtype | None = None, total: float = 1.0) -> Tensor:
        """The target as probabilities (B, K, ...), mixed, then smoothed; `total` times these."""
        if dtype is None:
            dtype = self.value.dtype if self.value.is_floating_point() else torch.get_default_dtype()
        rows = _rows(self.value, classes, dtype, self.smoothing * (total / classes))
        for part in self.parts:
            part.added_to(rows, (1.0 - self.smoothing) * total * part.share)
        return rows


def _rows(value: Tensor, classes: int, dtype: torch.dtype, filled: float | Tensor) -> Tensor:
    """(B, K, ...) for labels (B, ...) or probabilities of that shape, filled with one number."""
    shape = value.shape if value.is_floating_point() else (len(value), classes, *value.shape[1:])
    return torch.empty(shape, dtype=dtype, device=value.device).fill_(filled)
