"""Validation batches for tuning: drawn one after the other, round after round, from what the caller gave."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from tikhon.core.batches import map_tensors
from tikhon.core.errors import TikhonError
from tikhon.core.passes import RandomState
from tikhon.core.step import seed_for

LOOKS = 50
"""In how many tuning steps training samples are looked for among the validation samples."""

SHARE = 0.02
"""How many of them are too many; a few may be equal by chance."""


class Validation:
    """A stream of batches whose place can be saved.

    What the loader draws from torch's global generator follows from the recipe's seed and the place, so that it neither
    moves the training's random numbers nor is another one after a resume.
    """

    def __init__(self, batches: Iterable[Any], seed: int) -> None:
        if not isinstance(batches, Iterable):
            raise TikhonError(f"tune needs validation batches, a loader or a list, not {type(batches).__name__}.")
        if isinstance(batches, Iterator):
            raise TikhonError(
                f"tune goes through the validation batches again and again, and a {type(batches).__name__} can be gone "
                "through once: give a loader or a list."
            )
        self._batches, self._seed = batches, seed
        self.round, self.place = 0, 0  # of the batch in hand
        self._iterator: Iterator[Any] | None = None
        self._held: list[Any] = []
        self.current()

    def current(self) -> Any:
        """The batch in hand, the same one until `advance`."""
        if not self._held:
            if self._iterator is None:
                self._iterator = self._begun()
            try:
                batch = self._next(self._iterator, self.place)
            except StopIteration:
                self.round, self.place = self.round + 1, 0
                self._iterator = self._begun()
                try:
                    batch = self._next(self._iterator, 0)
                except StopIteration:
                    raise TikhonError("There are no validation batches: recipe.tune got an empty iterable.") from None
            self._held = [batch]
        return self._held[0]

    def advance(self) -> None:
        self._held, self.place = [], self.place + 1

    def load(self, round_: int, place: int) -> None:
        self.round, self.place, self._iterator, self._held = round_, place, None, []

    def _begun(self) -> Iterator[Any]:
        """This round's iterator, at its place."""
        before = RandomState.now(torch.device("cpu"))
        RandomState.of_seed(seed_for(self._seed, "validation", self.round), before.device).restore()
        try:
            iterator = iter(self._batches)
        finally:
            before.restore()
        for place in range(self.place):
            self._next(iterator, place)
        return iterator

    def _next(self, iterator: Iterator[Any], place: int) -> Any:
        before = RandomState.now(torch.device("cpu"))
        RandomState.of_seed(seed_for(self._seed, "validation", self.round, place), before.device).restore()
        try:
            return next(iterator)
        finally:
            before.restore()


class Overlap:
    """Looks for training samples among the validation samples, in the first tuning steps, and warns once."""

    def __init__(self) -> None:
        self._validation: Tensor | None = None
        self._coefficients: dict[tuple[int, torch.device], Tensor] = {}
        self._looks, self._rows, self._found = 0, 0, 0

    def look(self, training: Any, validation: Any) -> Tensor | None:
        """How many of the training rows are equal to a validation row of this or an earlier batch; a scalar."""
        if self._looks == LOOKS:
            return None
        rows, new = self._hashes(training), self._hashes(validation)
        self._validation = new if self._validation is None else torch.cat([self._validation, new]).unique()
        self._looks += 1
        self._rows += len(rows)
        return torch.isin(rows, self._validation).sum()

    def judge(self, found: int) -> None:
        """Warn if by now too many were found."""
        self._found += found
        if self._found >= max(2.0, SHARE * self._rows):
            self._looks = LOOKS
            warnings.warn(
                f"{self._found} of {self._rows} training samples are among the validation samples. Strengths that are "
                "tuned on what the network was trained on end too low: give recipe.tune data that are held out.",
                stacklevel=2,
            )

    def _hashes(self, batch: Any) -> Tensor:
        """An integer for each row of all tensors together, (B,): equal rows have equal ones, on every device."""
        hashes: list[Tensor] = []

        def add(values: Tensor) -> Tensor:
            bits = values.detach().reshape(len(values), -1)
            if bits.is_floating_point():
                bits = bits.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[bits.element_size()])
            hashes.append((bits.to(torch.int64) * self._factors(bits, len(hashes))).sum(1))
            return values

        map_tensors(add, batch)
        return torch.stack(hashes).sum(0)

    def _factors(self, bits: Tensor, number: int) -> Tensor:
        """Odd numbers from the whole range, one a column: sums of products that wrap around."""
        key = (number, bits.device)
        if key not in self._coefficients or len(self._coefficients[key]) != bits.shape[1]:
            generator = torch.Generator().manual_seed(number)
            drawn = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator)
            self._coefficients[key] = (2 * drawn + 1).to(bits.device)
        return self._coefficients[key]
