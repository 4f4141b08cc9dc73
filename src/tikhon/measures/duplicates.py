"""Duplicates: test samples that are in the training set as well, exactly or nearly, so that the test flatters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.math.neighbours import kth_squared_distance, nearest
from tikhon.math.statistics import share_interval
from tikhon.measures.samples import checked_samples, refuse_unlike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["exact_duplicates", "near_duplicates", "Duplicates", "NearDuplicates"]

REFERENCES = 2048
"""Training samples from which the usual distance is taken."""


@dataclass(frozen=True)
class Duplicates:
    """pairs: (P, 2) int64, of each test sample that is in the training set its place and the place of the first that
    equals it there, in the order of test samples; share: of test samples, (value, low, high), Wilson's interval."""

    pairs: Tensor
    share: tuple[float, float, float]


@dataclass(frozen=True)
class NearDuplicates:
    """pairs: (P, 2) int64, of each near duplicate its place in the test set and that of its nearest training sample, in
    the order of test samples; share: of test samples, (value, low, high), Wilson's interval; distances: (M,) float64 of
    all test samples to the nearest of training, 1 where it is the usual one between training samples; threshold: below
    which a distance is near."""

    pairs: Tensor
    share: tuple[float, float, float]
    distances: Tensor
    threshold: float

    def plot(self, axes: Axes | None = None) -> Axes:
        """A histogram of the distances with the threshold: duplicates are a hump of their own, at the left."""
        axes = given_or_new(axes)
        axes.hist(self.distances.clamp_max(3.0).numpy(), bins=60, range=(0.0, 3.0))
        axes.axvline(self.threshold, color="C1")
        axes.set_xlabel("distance to the nearest training sample (usual: 1)")
        axes.set_ylabel("test samples")
        return axes


def exact_duplicates(train: Tensor, test: Tensor, level: float = 0.95) -> Duplicates:
    """Test samples that occur in the training set to the bit.

    train, test: (N, ...), (M, ...), of one type and shape of a sample; level: the coverage of the interval, in (0, 1).
    0 and -0 are equal, NaN equals itself. Each row is hashed once.

    >>> exact_duplicates(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[3, 4], [5, 6]])).pairs
    tensor([[0, 1]])
    """
    refuse_unlike(train, test)
    if train.dtype != test.dtype:
        raise TikhonError(f"train is {train.dtype} and test {test.dtype}: rounded numbers equal no others. Cast one.")
    first: dict[bytes, int] = {}
    for place, key in enumerate(_hashes(train)):
        first.setdefault(key, place)
    found = [(place, first[key]) for place, key in enumerate(_hashes(test)) if key in first]
    return Duplicates(_pairs(found), share_interval(len(found), len(test), level))


def near_duplicates(train: Tensor, test: Tensor, threshold: float = 0.1, level: float = 0.95) -> NearDuplicates:
    """Test samples whose nearest training sample is much nearer than training samples usually are to each other.

    Use it on inputs for copies with a little noise, other compression or brightness; for crops, flips and paraphrases
    on features of a network. Where the training set itself is mostly copies, the usual distance says nothing.

    train, test: (N, ...) with N at least 2, (M, ...), finite; scale columns of different units first. threshold: below
    which distance a sample is a near duplicate, in units of the median over training samples of the distance to their
    nearest other; 0.1 by default; level: the coverage of the interval, in (0, 1). Takes N M D multiplications, in
    chunks, in float64; the median is that of at most 2,048 training samples, evenly spaced.

    >>> train = torch.arange(10.0)[:, None]
    >>> near_duplicates(train, torch.tensor([[3.01], [5.5]])).pairs
    tensor([[0, 3]])
    """
    a, b = checked_samples(train, test)
    if len(a) < 2 or not 0.0 < threshold < float("inf"):
        raise TikhonError(f"At least 2 training samples and a positive threshold are needed: {len(a)} and {threshold}.")
    usual = kth_squared_distance(a[:: -(-len(a) // REFERENCES)], a, k=2).sqrt().median()
    if not usual > 0:
        raise TikhonError("Half of the training samples are exact copies of others: remove these first.")
    place = nearest(b, a)
    distances = torch.linalg.vector_norm(b - a[place], dim=1) / usual
    near = distances < threshold
    pairs = torch.stack([near.nonzero()[:, 0], place[near]], dim=1)
    return NearDuplicates(pairs, share_interval(len(pairs), len(b), level), distances, threshold)


def _hashes(rows: Tensor) -> list[bytes]:
    """A digest of every row's bytes."""
    values = rows.detach().cpu().flatten(1)
    if values.is_floating_point():
        values = torch.where(values == 0, torch.zeros_like(values), values)  # -0 is 0
    table = values.contiguous().view(torch.uint8).reshape(len(values), -1).numpy()
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in table]


def _pairs(found: Sequence[tuple[int, int]]) -> Tensor:
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
