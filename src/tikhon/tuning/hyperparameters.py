"""Hyperparameters that are moved by gradients: a start, a range, and the map from all real numbers onto it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError


@dataclass(frozen=True)
class Hyperparameter:
    """One that is tuned, in place of a number. `Rate`, `Scale` and `Count` are the kinds."""

    start: float

    @property
    def origin(self) -> float:
        """The start as an unconstrained number."""
        raise NotImplementedError

    def value(self, raw: Tensor) -> Tensor:
        """Unconstrained numbers -> values in the range."""
        raise NotImplementedError


@dataclass(frozen=True)
class Rate(Hyperparameter):
    """A number between two bounds, by a stretched logistic function; start strictly between them.

    >>> Rate(0.25, high=0.5).value(torch.zeros(1))
    tensor([0.2500])
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.start < self.high):
            raise TikhonError(f"A rate starts strictly between two finite bounds: {self} does not.")

    @property
    def origin(self) -> float:
        return math.log(self.start - self.low) - math.log(self.high - self.start)

    def value(self, raw: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.sigmoid(raw)


@dataclass(frozen=True)
class Scale(Hyperparameter):
    """A positive number of any size, by an exponential: such as a standard deviation or a weight decay.

    >>> Scale(0.1).value(torch.tensor([Scale(0.1).origin]))
    tensor([0.1000])
    """

    def __post_init__(self) -> None:
        if not 0.0 < self.start < math.inf:
            raise TikhonError(f"A scale starts at a positive, finite number: {self} does not.")

    @property
    def origin(self) -> float:
        return math.log(self.start)

    def value(self, raw: Tensor) -> Tensor:
        return raw.exp()


@dataclass(frozen=True)
class Count(Hyperparameter):
    """A whole number from low to high, both included: the floor of a rate between low and high + 1.

    No gradient passes the floor, and none is needed: weights respond to the unconstrained number, whose perturbations
    spread over the whole numbers around it.

    >>> Count(1, high=3).value(torch.tensor([-5.0, 0.0, 5.0]))
    tensor([0., 2., 3.])
    """

    high: int
    low: int = 0

    def __post_init__(self) -> None:
        numbers = (self.low, self.start, self.high)
        if not (all(isinstance(one, int) for one in numbers) and self.low <= self.start <= self.high > self.low):
            raise TikhonError(f"A count starts at a whole number between two others, both included: {self} does not.")

    @property
    def origin(self) -> float:
        middle = self.start + 0.5  # of the interval whose floor is the start
        return math.log(middle - self.low) - math.log(self.high + 1 - middle)

    def value(self, raw: Tensor) -> Tensor:
        whole = (self.low + (self.high + 1 - self.low) * torch.sigmoid(raw)).floor()
        return whole.clamp(max=self.high)  # where the logistic function rounds to 1
