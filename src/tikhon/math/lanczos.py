"""Lanczos: the ends of the spectrum of a symmetric operator that is known by its products with vectors alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32


class Ritz(NamedTuple):
    """What a Krylov space knows of a symmetric operator, in float64, from the largest value down.

    values: (m,), approximate eigenvalues; errors: (m,), at least 0: an eigenvalue lies within this of each value;
    weights: (m,), the squared share of the start vector along each, of sum 1: of a random start vector the share of
    the spectrum that lies near the value.
    """

    values: Tensor
    errors: Tensor
    weights: Tensor


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    count: int = 1,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Ritz:
    """Eigenvalues of a symmetric operator from a Krylov space, with full re-orthogonalisation.

    product: (P,) -> (P,), the operator; start: (P,), not 0; steps: how many products at the most; count, tolerance: it
    ends early once the `count` largest values are known to within this share of the largest magnitude; seed: of the
    vectors with which the search goes on where a space is exhausted, so that repeated eigenvalues are found. After P
    steps all eigenvalues are there, up to rounding. Memory: `steps` vectors. Raises `TikhonError` for a product that is
    not finite. Source: Lanczos 1950; errors as in Parlett 1998, section 13.2.

    >>> diagonal = torch.tensor([3.0, -1.0, 2.0])
    >>> lanczos(lambda v: diagonal * v, torch.ones(3), steps=3).values
    tensor([ 3.0000,  2.0000, -1.0000], dtype=torch.float64)
    """
    if steps < 1 or start.ndim != 1 or not len(start):
        raise TikhonError(
            f"Lanczos needs a start vector (P,) that is not empty and at least one step, not {tuple(start.shape)} and "
            f"{steps}."
        )
    vector = at_least_float32(start)
    vector = vector / torch.linalg.vector_norm(vector)
    steps = min(steps, len(vector))
    basis = vector.new_empty(steps, len(vector))
    rounding = math.sqrt(len(vector)) * torch.finfo(vector.dtype).eps
    generator = torch.Generator().manual_seed(seed)
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(steps):
        basis[step] = vector
        image = product(vector.to(start.dtype)).to(vector.dtype)
        diagonal.append(float(vector @ image))
        if not math.isfinite(diagonal[-1]):
            raise TikhonError("A product with a vector is not finite: look for NaN in the weights or the data.")
        rest = _orthogonal(image, basis[: step + 1])
        length = float(torch.linalg.vector_norm(rest))
        scale = max(map(abs, (*diagonal, *beside)))
        exhausted = length <= rounding * scale
        beside.append(0.0 if exhausted else length)
        found = _ritz(diagonal, beside)
        known = step + 1 >= count and bool((found.errors[:count] <= tolerance * scale).all())
        if step + 1 == steps or (known and not exhausted):
            break
        if exhausted:
            fresh = torch.randn(len(vector), generator=generator, dtype=torch.float64).to(vector)
            rest = _orthogonal(fresh, basis[: step + 1])
        vector = rest / torch.linalg.vector_norm(rest)
    return found


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """The vector without its part in the space of the basis' rows; twice, because once leaves rounding behind."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector


def _ritz(diagonal: list[float], beside: list[float]) -> Ritz:
    inner = torch.tensor(beside[:-1], dtype=torch.float64)
    tridiagonal = torch.tensor(diagonal, dtype=torch.float64).diag() + inner.diag(1) + inner.diag(-1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return Ritz(values.flip(0), beside[-1] * vectors[-1].abs().flip(0), vectors[0].square().flip(0))
