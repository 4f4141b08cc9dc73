"""LV-HBA: constrained bilevel problems in one loop of first-order steps, without solving the lower problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import Diverged, TikhonError
from tikhon.math.vectors import flattened

__all__ = ["LVHBA", "Point"]

card = Card(
    title="Constrained Bi-Level Optimization: Proximal Lagrangian Value function Approach and Hessian-free Algorithm",
    authors="Yao, Yu, Zeng, Zhang",
    year=2024,
    arxiv="2401.16164",
    problems=("noisy-labels", "overfitting", "speed"),
    formula=r"\min_{(x,y)\in C,\,z\in Z}\ \tfrac1{c_k}F(x,y)+f(x,y)-v_{\gamma}(x,y,z)",
    claim="Solves bilevel problems with constraints that couple both levels, without Hessians and without strong "
    "convexity of the lower one.",
    helps="Convex lower problems with constraints, or with many solutions.",
    hurts="Steps that are too long for the constraints, which diverge; high accuracy, which takes ever more steps.",
    cost="Gradients of both levels at two points a step, and thousands of steps.",
    neutral="",
    kind="tuner",
)

CHECKED = 100
"""Steps after which the numbers are looked at."""
GROWTH = 1e3
"""How often 1 + the norm of what it began with the variables may be."""


def _slopes(function: Callable[..., Tensor], *at: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():  # less overhead than torch.func.grad, and there are thousands of steps
        leaves = [one.detach().requires_grad_() for one in at]
        return torch.autograd.grad(function(*leaves), leaves, materialize_grads=True, allow_unused=True)


@dataclass(frozen=True)
class Point:
    """x, y, nested as they were given; theta: the lower problem's own solution, like y; multiplier: of the constraints,
    (m,)."""

    x: Any
    y: Any
    theta: Any
    multiplier: Tensor


class LVHBA:
    """Minimise upper(x, y) where y minimises lower(x, .) among constraints(x, .) <= 0.

    Use it where the lower problem is convex and constrained, or has many solutions: weights of samples or penalties of
    a support vector machine, a budget that both levels share. A free, smooth and strongly convex lower problem is
    solved faster by `MAID`.

    Every step moves theta and the multiplier towards the lower problem's saddle point near (y, z), then x and y down
    F / c_k + f - v, whose slopes need no derivative of theta, then z towards the multiplier:

        theta -= eta (f_y(x, theta) + lambda g_y(x, theta) + (theta - y) / gamma1)
        lambda += eta (g(x, theta) - (lambda - z) / gamma2)
        x -= alpha (F_x / c_k + f_x(x, y) - f_x(x, theta) - lambda g_x(x, theta))
        y -= alpha (F_y / c_k + f_y(x, y) - (y - theta) / gamma1),   z += beta (lambda - z) / gamma2

    with c_k = c (k + 1)^p, and projections onto the sets. As c_k grows, y comes to solve the lower problem.

    upper, lower: (x, y) -> scalar; constraints: (x, y) -> (m,), or None, all pure and differentiable, of tensors or
    dicts of them; project: (x, y) -> (x, y) onto the set where constraints hold (and all else that binds
    both), None: nothing binds; project_lower: theta -> theta, onto the set that binds y alone; equality: constraints
    are = 0, and multipliers have both signs. alpha, beta, eta: 0.01; gamma1, gamma2: 10; c, p: 1 and 0.3, p
    below 1/2; bound: of multipliers, 1000.

    Stable only for short steps: eta below about 2 / (gamma2 s^2), s the greatest singular value of the constraints'
    derivative in y, alpha and beta no longer than eta and below 1 over the curvature of F / c + f; so they shrink as
    problems grow. With the official code's steps its own example diverges in 100 dimensions. `Diverged` says so.

    Cost: see the card. State: `state_dict` goes on to the bit.
    Reference: Yao, Yu, Zeng, Zhang 2024, arXiv 2401.16164, algorithm 1.

    >>> upper = lambda x, y: 0.5 * (x + y - 3.0).square().sum()
    >>> lower = lambda x, y: 0.5 * (y - x).square().sum()
    >>> search = tikhon.LVHBA(upper, lower, alpha=0.1, eta=0.1, c=10.0)
    >>> found = search.solve(torch.zeros(1), torch.zeros(1), steps=3000)
    >>> found.x.round(decimals=1), found.y.round(decimals=1)
    (tensor([1.5000]), tensor([1.5000]))
    """

    def __init__(
        self,
        upper: Callable[[Any, Any], Tensor],
        lower: Callable[[Any, Any], Tensor],
        constraints: Callable[[Any, Any], Tensor] | None = None,
        *,
        project: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        project_lower: Callable[[Any], Any] | None = None,
        equality: bool = False,
        alpha: float = 0.01,
        beta: float = 0.01,
        eta: float = 0.01,
        gamma1: float = 10.0,
        gamma2: float = 10.0,
        c: float = 1.0,
        p: float = 0.3,
        bound: float = 1000.0,
    ) -> None:
        numbers = {"alpha": alpha, "beta": beta, "eta": eta, "gamma1": gamma1, "gamma2": gamma2, "c": c, "bound": bound}
        for name, value in numbers.items():
            if not 0.0 < value < math.inf:
                raise TikhonError(f"{name} must be positive and finite, not {value!r}.")
        if not 0.0 <= p < 0.5:
            raise TikhonError(f"p must be at least 0 and below 1/2, not {p!r}.")
        self.upper, self.lower, self.constraints = upper, lower, constraints
        self.project, self.project_lower = project, project_lower
        self.alpha, self.beta, self.eta, self.gamma1, self.gamma2 = alpha, beta, eta, gamma1, gamma2
        self.c, self.p, self.range = c, p, (-bound if equality else 0.0, bound)

    def solve(self, x: Any = None, y: Any = None, *, steps: int = 1000) -> Point:
        """Take steps from x and y, or from where the last call or a loaded state ended.

        Raises `Diverged` where the variables are no longer finite or grow a thousandfold, or a multiplier is at its
        bound; the state is then lost.
        """
        if (x is None) != (y is None) or (x is None and not hasattr(self, "_x")):
            raise TikhonError("Pass x and y to begin, or neither to go on from an earlier call or a loaded state.")
        if steps < 0:
            raise TikhonError(f"steps must be at least 0, not {steps!r}.")
        if x is not None:
            self._begin(x, y)
        for done in range(steps):
            self._step()
            if done % CHECKED == CHECKED - 1 or done == steps - 1:
                self._check()
        return Point(self._x_nest(self._x), self._y_nest(self._y), self._y_nest(self._theta), self._multiplier)

    def _begin(self, x: Any, y: Any) -> None:
        first, (self._y, self._y_nest) = flattened(x, "x"), flattened(y, "y")
        self._x, self._x_nest = first
        self._x, self._y = self._projected(self._x, self._y)
        self._theta = self._y
        held = self._held(self._x, self._theta)
        if held.ndim != 1:
            raise TikhonError(f"constraints must return (m,), one number for each, not {tuple(held.shape)}.")
        self._multiplier = self._z = torch.zeros_like(held)
        self._number = 0
        self._scale = 1.0 + float(self._x.norm() + self._y.norm())

    @torch.no_grad()
    def _step(self) -> None:
        """Algorithm 1, all slopes of theta and the multiplier at the same point."""
        x, y, z, theta, multiplier = self._x, self._y, self._z, self._theta, self._multiplier
        (slope,) = _slopes(lambda at: self._lagrangian(x, at, multiplier), theta)
        held = self._held(x, theta)
        theta = theta - self.eta * (slope + (theta - y) / self.gamma1)
        multiplier = multiplier + self.eta * (held - (multiplier - z) / self.gamma2)
        if self.project_lower is not None:
            theta, _ = flattened(self.project_lower(self._y_nest(theta)), "project_lower's result")
        multiplier = multiplier.clamp(*self.range)
        weight = 1.0 / (self.c * (self._number + 1) ** self.p)
        down_x, down_y = _slopes(partial(self._weighted, weight), x, y)
        (slope,) = _slopes(lambda at: self._lagrangian(at, theta, multiplier), x)
        down_x = down_x - slope
        down_y = down_y - (y - theta) / self.gamma1
        self._x, self._y = self._projected(x - self.alpha * down_x, y - self.alpha * down_y)
        self._z = (z + self.beta * (multiplier - z) / self.gamma2).clamp(*self.range)
        self._theta, self._multiplier, self._number = theta, multiplier, self._number + 1

    def _lagrangian(self, x: Tensor, y: Tensor, multiplier: Tensor) -> Tensor:
        return self.lower(self._x_nest(x), self._y_nest(y)) + multiplier @ self._held(x, y)

    def _weighted(self, weight: float, x: Tensor, y: Tensor) -> Tensor:
        """F / c_k + f."""
        nests = self._x_nest(x), self._y_nest(y)
        return weight * self.upper(*nests) + self.lower(*nests)

    def _held(self, x: Tensor, y: Tensor) -> Tensor:
        if self.constraints is None:
            return y.new_zeros(0)
        return self.constraints(self._x_nest(x), self._y_nest(y))

    def _projected(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.project is None:
            return x, y
        nests = self.project(self._x_nest(x), self._y_nest(y))
        return flattened(nests[0], "project's x")[0], flattened(nests[1], "project's y")[0]

    def _check(self) -> None:
        size = float(self._x.norm() + self._y.norm() + self._theta.norm())
        if size < GROWTH * self._scale and bool((self._multiplier.abs() < self.range[1]).all()):
            return
        raise Diverged(
            f"After {self._number} steps of LV-HBA the variables' norm is {size:.3g}, or a multiplier is at its bound "
            f"of {self.range[1]}. Lower eta ({self.eta}), the more the steeper and the more the constraints are, and "
            f"alpha ({self.alpha}) and beta ({self.beta}) to no more than eta."
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; {} before the first `solve`."""
        if not hasattr(self, "_x"):
            return {}
        nests = {"x": self._x_nest(self._x), "y": self._y_nest(self._y), "theta": self._y_nest(self._theta)}
        return {**nests, "multiplier": self._multiplier, "z": self._z, "number": self._number, "scale": self._scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned: the next `solve()` needs no x and y."""
        (self._x, self._x_nest), (self._y, self._y_nest) = flattened(state["x"], "x"), flattened(state["y"], "y")
        self._theta, _ = flattened(state["theta"], "theta")
        self._multiplier, self._z = state["multiplier"], state["z"]
        self._number, self._scale = state["number"], state["scale"]
