"""Iterations that end where they can promise something: descent on convex functions, linear systems, spectral norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Minimum:
    """x (N,); distance: how far it is from the minimiser at most; evaluations of the gradient; smoothness: its
    Lipschitz constant, as met on the way; reached: whether it ended because it was there, or near enough."""

    x: Tensor
    distance: float
    evaluations: int
    smoothness: float
    reached: bool


def minimised(
    function: Function,
    x: Tensor,
    convexity: float,
    distance: float,
    smoothness: float = 0.0,
    limit: int = 10_000,
    enough: Callable[[Tensor, float], bool] | None = None,
) -> Minimum:
    """Accelerated gradient descent on a strongly convex function, until ||gradient|| <= convexity * distance.

    The minimiser is then no further away than `distance`. x: (N,), where to begin; convexity: a lower bound of the
    Hessian's eigenvalues; smoothness: a guess of their upper bound, 0: none. A guess that is too low shows as a steeper
    change of the gradient between two points; it is raised, and the descent goes on from the best point. Momentum
    starts anew where it leads uphill (O'Donoghue and Candes 2015). enough: asked with x and its distance whenever that
    has halved; it ends where the answer is true. It ends short of the distance after `limit` evaluations, where
    rounding stalls it, where the first gradient is not finite, or a convexity not positive.

    >>> minimised(lambda x: (x - 3.0).square().sum(), torch.zeros(2), convexity=2.0, distance=1e-3).x
    tensor([3., 3.])
    """
    if not 0.0 < convexity < math.inf:
        return Minimum(x, math.inf, 0, smoothness, reached=False)
    smoothness = max(smoothness, convexity)
    ahead, before, momentum = x, x, 1.0
    best, lowest, halved, waited, evaluations, reached = x, math.inf, math.inf, 0, 0, False
    last: tuple[Tensor, Tensor] | None = None
    while evaluations < limit and waited < 100 + 20.0 * math.sqrt(smoothness / convexity):
        gradient = _gradient(function, ahead)
        evaluations += 1
        norm = float(gradient.norm())
        waited += 1
        if norm < lowest:
            best, lowest = ahead, norm
        if norm < 0.5 * halved:
            halved, waited = norm, 0
            reached = enough is not None and enough(ahead, norm / convexity)
        if reached := reached or norm <= convexity * distance:
            break
        if last is None and not math.isfinite(norm):
            break
        if last is not None and not (curvature := _curvature(ahead - last[0], gradient - last[1])) <= smoothness:
            smoothness = 1.1 * curvature if math.isfinite(curvature) else 10.0 * smoothness
            ahead, before, momentum, last = best, best, 1.0, None
            continue
        last = ahead, gradient
        here = ahead - gradient / smoothness
        if float(gradient @ (here - before)) > 0.0:
            momentum = 1.0
        following = 0.5 + math.sqrt(0.25 + momentum**2)
        steepest = (1.0 - (root := math.sqrt(convexity / smoothness))) / (1.0 + root)
        ahead = here + min((momentum - 1.0) / following, steepest) * (here - before)
        before, momentum = here, following
    return Minimum(best, lowest / convexity, evaluations, smoothness, reached)


def _gradient(function: Function, x: Tensor) -> Tensor:
    with torch.enable_grad():  # half the overhead of torch.func.grad, and it is called thousands of times
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf)[0]


def _curvature(moved: Tensor, changed: Tensor) -> float:
    """How fast the gradient changes along a move; 0 of no move."""
    size = float(moved @ moved)
    return float(moved @ changed) / size if size > 0.0 else 0.0


def conjugate_gradients(
    product: Function, right: Tensor, start: Tensor, residual: float, limit: int
) -> tuple[Tensor, float, int]:
    """A x = right for symmetric positive A, until ||right - A x|| <= residual: x, that norm, and how many products.

    product: x -> A x; right, start: (N,). It ends short of the residual after `limit` products or where rounding has
    eaten the curvature.

    >>> conjugate_gradients(lambda x: 2.0 * x, torch.tensor([2.0, 4.0]), torch.zeros(2), 1e-6, limit=10)[0]
    tensor([1., 2.])
    """
    x, rest, used = start, right - product(start), 1
    direction, energy = rest, float(rest @ rest)
    best, lowest = x, energy
    while math.sqrt(lowest) > residual and used < limit:
        image = product(direction)
        used += 1
        curvature = float(direction @ image)
        if not curvature > 0.0:
            break
        x, rest = x + energy / curvature * direction, rest - energy / curvature * image
        before, energy = energy, float(rest @ rest)
        direction = rest + energy / before * direction
        if energy < lowest:
            best, lowest = x, energy
    return best, math.sqrt(lowest), used


def spectral_norm(product: Function, start: Tensor, rounds: int) -> tuple[float, Tensor]:
    """The greatest |eigenvalue| of a symmetric matrix by `rounds` of power iteration, and a start for the next time.

    product: x -> A x; start: (N,), not 0. Too low where the rounds do not suffice; never too high.

    >>> spectral_norm(lambda x: torch.tensor([3.0, 1.0]) * x, torch.ones(2), rounds=30)[0]
    3.0
    """
    length = float(start.norm())
    if not (length > 0.0 and math.isfinite(length)):
        raise TikhonError(f"Power iteration needs a finite start that is not 0, not one of length {length}.")
    norm, vector = 0.0, start / length
    for _ in range(rounds):
        image = product(vector)
        norm = float(image.norm())
        if not (norm > 0.0 and math.isfinite(norm)):
            return norm, vector
        vector = image / norm
    return norm, vector
