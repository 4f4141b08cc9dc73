"""Distance covariance beside dcor."""

from __future__ import annotations

import dcor
import torch

from benchmarks.harness import Pair, case
from tikhon.math.dependence import distance_covariance

SORTED = "dcor sorts scalars, compiled by numba; ours compares all pairs up to 450, and blocks of them beyond"


def pair(n: int, d: int, unbiased: bool, method: str) -> Pair:
    x = torch.randn(n, d, dtype=torch.float64)
    y = x.square() + torch.randn(n, d, dtype=torch.float64)
    if d == 1:
        x, y = x[:, 0], y[:, 0]
    theirs = dcor.u_distance_covariance_sqr if unbiased else dcor.distance_covariance_sqr
    ours, other = (x.numpy(), y.numpy()), {"method": method}
    return Pair(
        lambda: distance_covariance(x, y, unbiased), lambda: torch.as_tensor(theirs(*ours, **other)), 1e-9, numpy=True
    )


@case("distance covariance, 1,000 x 10", peer="dcor")
def vectors() -> Pair:
    return pair(1000, 10, False, "naive")


@case("unbiased distance covariance, 1,000 x 10", peer="dcor")
def unbiased_vectors() -> Pair:
    return pair(1000, 10, True, "naive")


@case("distance covariance of 1,000 scalars", peer="dcor", note=SORTED)
def scalars() -> Pair:
    return pair(1000, 1, False, "mergesort")


@case("distance covariance of 200 scalars", peer="dcor", note=SORTED)
def few_scalars() -> Pair:
    return pair(200, 1, False, "mergesort")
