"""Bilevel problems: as functions of vectors, and their hypergradients with a bound on the error.

    min_theta F(x*(theta)),   x*(theta) = argmin_x g(theta, x)

Arguments are vectors (`vectors.flattened`); g and F return scalars, g is three times differentiable, F twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from tikhon.math.iterations import Function, Minimum, conjugate_gradients, minimised, spectral_norm
from tikhon.math.vectors import flattened

Pair = Callable[[Tensor, Tensor], Tensor]
Norms = Mapping[str, tuple[float, Tensor]]
"""Spectral norms by name, each with the vector from which power iteration goes on."""


@dataclass(frozen=True)
class Problem:
    """g(theta, x), F(x) and the convexity of g in x at a theta, of vectors, and the ways back to nests."""

    lower: Pair
    upper: Function
    convexity: Callable[[Tensor], float]
    theta_nest: Callable[[Tensor], Any]
    x_nest: Callable[[Tensor], Any]

    def minimum(self, theta: Tensor, x: Tensor, distance: float, **options: Any) -> Minimum:
        """x* at theta up to a distance, from x on; options: of `iterations.minimised`."""
        return minimised(lambda at: self.lower(theta, at), x, self.convexity(theta), distance, **options)

    def upper_near(self, x: Tensor, distance: float, curvature: float) -> tuple[float, float]:
        """F at x, and how far from that it is at most within a distance; curvature: |d2F|."""
        slope, value = grad_and_value(self.upper)(x)
        return float(value), float(slope.norm()) * distance + 0.5 * curvature * distance * distance


def nested_problem(
    lower: Callable[[Any, Any], Tensor], upper: Callable[[Any], Tensor], convexity: Any, theta: Any, x: Any
) -> tuple[Problem, Tensor, Tensor]:
    """The problem of vectors that stands for one of nests, with theta and x as vectors.

    convexity: a number or a function of theta.
    """
    (theta_vector, theta_nest), (x_vector, x_nest) = flattened(theta, "theta"), flattened(x, "x")
    problem = Problem(
        lambda one, other: lower(theta_nest(one), x_nest(other)),
        lambda other: upper(x_nest(other)),
        lambda one: float(convexity(theta_nest(one)) if callable(convexity) else convexity),
        theta_nest,
        x_nest,
    )
    return problem, theta_vector, x_vector


@dataclass(frozen=True)
class Hypergradient:
    """gradient (P,); error: a bound on its distance from the true one; adjoint (N,): the solution of the linear system;
    residual: its norm; products with second and third derivatives; norms: of the matrices that the bound needs, by
    name, each with the vector from which power iteration goes on."""

    gradient: Tensor
    error: float
    adjoint: Tensor
    residual: float
    products: int
    norms: Norms


def hypergradient(
    lower: Pair,
    upper: Function,
    theta: Tensor,
    x: Tensor,
    convexity: float,
    distance: float,
    residual: float,
    adjoint: Tensor | None = None,
    norms: Norms | None = None,
) -> Hypergradient:
    """The gradient of F(x*(theta)) from a point near x*, and how wrong it may be.

        A q = grad F(x) up to r,   gradient = -B^T q,   A = d2g/dx2,   B = d2g/dx dtheta
        error = |dB'q| e + (|B| + |dB'q| e / |q|) ((|dA q| + |d2F|) e + |r|) / mu

    lower, upper: g(theta, x) and F(x); theta: (P,); x: (N,), no further than distance = e from x*; convexity: mu, a
    lower bound of A's eigenvalues; residual: to which |r| conjugate gradients solve; adjoint: where they begin; norms:
    of an earlier point, where power iteration begins. |dA q| and |dB' q| are the slopes of A q and B^T q in x for this
    q, norms are spectral.

    The bound holds to first order in e and |r|. It is that of Ehrhardt and Roberts 2023 (arXiv 2301.04764) with the q
    that was found in place of the greatest possible, and with Lipschitz constants at x in place of global ones.
    """
    slope = grad(lower, argnums=1)
    wanted, upper_hessian = vjp(grad(upper), x)[:2]
    hessian = vjp(lambda at: slope(theta, at), x)[1]
    start = torch.zeros_like(x) if adjoint is None else adjoint
    q, rest, used = conjugate_gradients(lambda v: hessian(v)[0], wanted, start, residual, limit=10 * len(x) + 50)

    def along(pair: Pair) -> tuple[Function, Function]:
        """v -> (d2 pair / dx dtheta) v and its transpose, of a scalar pair(theta, x)."""
        mixed = vjp(lambda at: grad(pair, argnums=0)(theta, at), x)[1]
        transposed = vjp(lambda at: grad(pair, argnums=1)(at, x), theta)[1]
        return lambda v: mixed(v)[0], lambda v: transposed(v)[0]

    def pulled(at_theta: Tensor, at_x: Tensor) -> Tensor:
        product: Tensor = slope(at_theta, at_x) @ q
        return product

    mixed, transposed = along(lower)
    mixed_slope, mixed_slope_transposed = along(pulled)
    hessian_slope = vjp(lambda at: grad(pulled, argnums=1)(theta, at), x)[1]
    products: Mapping[str, tuple[Function, int]] = {
        "mixed": (lambda v: transposed(mixed(v)), len(theta)),
        "mixed slope": (lambda v: mixed_slope_transposed(mixed_slope(v)), len(theta)),
        "hessian slope": (lambda v: hessian_slope(v)[0], len(x)),
        "upper hessian": (lambda v: upper_hessian(v)[0], len(x)),
    }
    rounds = 20 if norms is None else 3
    found: dict[str, tuple[float, Tensor]] = {}
    for name, (product, size) in products.items():
        begin = _noise(size, x) if norms is None else norms[name][1]
        found[name] = spectral_norm(product, begin, rounds)
    b, slope_b = math.sqrt(found["mixed"][0]), math.sqrt(found["mixed slope"][0])
    length = float(q.norm())
    further = slope_b * distance / length if length > 0.0 else 0.0
    missed = ((found["hessian slope"][0] + found["upper hessian"][0]) * distance + rest) / convexity
    error = slope_b * distance + (b + further) * missed
    return Hypergradient(-transposed(q), error, q, rest, used + 6 * rounds, found)


def _noise(size: int, like: Tensor) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(like)
