"""MAID: descent on hyper-parameters that solves the lower problem only as closely as the next step needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import Diverged, TikhonError
from tikhon.math.bilevel import Hypergradient, Norms, hypergradient, nested_problem
from tikhon.math.iterations import Minimum

__all__ = ["MAID", "Iteration", "Solution"]

card = Card(
    title="An adaptively inexact first-order method for bilevel optimization with application to hyperparameter "
    "learning",
    authors="Salehi, Mukherjee, Roberts, Ehrhardt",
    year=2023,
    arxiv="2308.10098",
    problems=("overfitting", "speed"),
    formula=r"\theta\leftarrow\theta-\alpha z,\quad \lVert z-\nabla f(\theta)\rVert\le\omega\le(1-\eta)\lVert z\rVert",
    claim="Finds accuracy and step by itself, whatever they begin with, and so needs fewer iterations of the lower "
    "problem than fixed accuracies.",
    helps="Many continuous hyper-parameters of a smooth, strongly convex problem: weights of penalties, filters.",
    hurts="Networks, whose training is not convex; few hyper-parameters, where a search does.",
    cost="A lower problem solved for every step that is tried; conjugate gradients for every step that is taken.",
    neutral="",
    kind="tuner",
)


Ending = Literal["tolerance", "iterations", "accuracy"]
TRIES = 5
"""Steps that cannot be told before accuracy and residual are refined."""
LIMIT = 10_000
"""Evaluations of the gradient for a lower problem; a step whose lower problem needs more is too long."""
STATE = ("accuracy", "residual", "step", "_smoothness", "_evaluations", "_products")
"""The numbers that change from step to step."""


@dataclass(frozen=True)
class Iteration:
    """What a step of MAID did. upper: F at its end; gradient: the hypergradient's norm, error: the bound on how wrong
    it is; accuracy, residual, step: those it was taken with; evaluations of the lower gradient and products with second
    derivatives, since the start."""

    upper: float
    gradient: float
    error: float
    accuracy: float
    residual: float
    step: float
    evaluations: int
    products: int


@dataclass(frozen=True)
class Solution:
    """theta and x, nested as they were given; ended: by "tolerance", the true hypergradient is no longer than asked
    for; by "iterations"; or by "accuracy", which rounding or the limit of evaluations keeps from what the next step
    needs; trace: what every step did."""

    theta: Any
    x: Any
    ended: Ending
    trace: list[Iteration]

    @property
    def converged(self) -> bool:
        return self.ended == "tolerance"


class MAID:
    """Minimise upper(x) over theta, where x minimises lower(theta, x).

    Use it for tens to thousands of continuous hyper-parameters of one smooth, strongly convex problem, with upper the
    loss on validation data. Strengths are best given as exp(theta). Neither the accuracy nor the step it begins with
    matters much: a hypergradient whose error may turn it uphill is computed again more closely, a step counts only if
    upper falls whatever x hides, and both are relaxed after a success. Not for networks: their lower problem is not
    convex, and nothing here holds.

    lower: (theta, x) -> scalar; upper: x -> scalar, pure and differentiable by torch.func, of tensors or dicts of them;
    convexity: positive, a lower bound of the eigenvalues of lower's Hessian in x, or a function of theta that gives it:
    what all accuracies rest on. accuracy: the distance to the minimiser to begin with, in units of x, 0.1 in the paper;
    residual: of the linear system, 0.1; step: the first step size, 1; eta: 1e-4, the share of the gradient that its
    error may not hide; shrink: 0.5, of the step when it is too long, which grows by its inverse after a success;
    refine, relax: 0.5 and 1.05, of accuracy and residual. Better in float64.

    The paper shortens the step where it does not see upper fall; here a step where upper has surely risen is shortened
    for good, and only one that cannot be told is a reason to refine: so a first step that is far too long does no harm.

    Cost: see the card. State: `state_dict` goes on to the bit.
    Reference: Salehi et al. 2023, arXiv 2308.10098.

    >>> target = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> lower = lambda theta, x: 0.5 * (x - theta).square().sum()
    >>> upper = lambda x: 0.5 * (x - target).square().sum()
    >>> maid = tikhon.MAID(lower, upper, convexity=1.0, step=100.0)
    >>> found = maid.solve(torch.zeros_like(target), torch.zeros_like(target), tolerance=1e-3)
    >>> found.converged, found.theta.round(decimals=2)
    (True, tensor([1., 2.], dtype=torch.float64))
    """

    def __init__(
        self,
        lower: Callable[[Any, Any], Tensor],
        upper: Callable[[Any], Tensor],
        convexity: float | Callable[[Any], float | Tensor],
        *,
        accuracy: float = 0.1,
        residual: float = 0.1,
        step: float = 1.0,
        eta: float = 1e-4,
        shrink: float = 0.5,
        refine: float = 0.5,
        relax: float = 1.05,
    ) -> None:
        if not all(0.0 < value < math.inf for value in (accuracy, residual, step)):
            raise TikhonError(
                f"accuracy, residual and step must be positive, not {accuracy!r}, {residual!r}, {step!r}."
            )
        if not all(0.0 < value < 1.0 for value in (eta, shrink, refine)) or not 1.0 <= relax < math.inf:
            raise TikhonError(
                f"eta, shrink and refine must be between 0 and 1, relax at least 1, not {eta!r}, {shrink!r}, "
                f"{refine!r}, {relax!r}."
            )
        self.lower, self.upper, self.convexity = lower, upper, convexity
        self.eta, self.shrink, self.refine, self.relax = eta, shrink, refine, relax
        self.accuracy, self.residual, self.step = self._given = accuracy, residual, step

    def solve(self, theta: Any = None, x: Any = None, *, iterations: int = 100, tolerance: float = 1e-4) -> Solution:
        """Take steps from theta and x, or from where the last call or a loaded state ended.

        iterations: steps at most; tolerance: of the norm of the true hypergradient, positive. Raises `Diverged` where
        the lower problem cannot be computed at theta.
        """
        if (theta is None) != (x is None) or (theta is None and not hasattr(self, "_theta")):
            raise TikhonError("Pass theta and x to begin, or neither to go on from an earlier call or a loaded state.")
        if not 0.0 < tolerance < math.inf or iterations < 0:
            raise TikhonError(f"tolerance must be positive, iterations at least 0, not {tolerance!r}, {iterations!r}.")
        if theta is not None:
            self._begin(theta, x)
        ended: Ending | None = None
        for _ in range(iterations):
            if (ended := self._step(tolerance)) is not None:
                break
        nests = self._problem.theta_nest(self._theta), self._problem.x_nest(self._x)
        return Solution(*nests, ended or "iterations", list(self.trace))

    def _begin(self, theta: Any, x: Any) -> None:
        problem, self._theta, self._x = nested_problem(self.lower, self.upper, self.convexity, theta, x)
        if not 0.0 < (convexity := problem.convexity(self._theta)) < math.inf:
            raise TikhonError(f"convexity must be positive and finite; at this theta it is {convexity!r}.")
        self._problem = problem
        self.accuracy, self.residual, self.step = self._given
        self.trace: list[Iteration] = []
        self._warm: tuple[Tensor | None, Norms | None] = None, None
        self._smoothness = 0.0
        self._evaluations = self._products = 0

    def _step(self, tolerance: float) -> Ending | None:
        """Find a step that surely lowers upper, and take it; or say why there is none."""
        while True:
            here = self._minimum(self._theta, self._x)
            if not math.isfinite(here.distance):
                raise Diverged("The lower problem is not finite at this theta and x: begin elsewhere.")
            found = self._hypergradient(here)
            size = float(found.gradient.norm())
            if size + found.error <= tolerance:
                return "tolerance"
            if found.error <= (1.0 - self.eta) * size and self._descended(found, here, size):
                return None
            if not here.reached:
                return "accuracy"
            self.accuracy, self.residual = self.refine * self.accuracy, self.refine * self.residual

    def _minimum(self, theta: Tensor, x: Tensor, enough: Callable[[Tensor, float], bool] | None = None) -> Minimum:
        """The lower problem at theta, solved from x to the accuracy in hand, or until it is enough."""
        found = self._problem.minimum(theta, x, self.accuracy, smoothness=self._smoothness, limit=LIMIT, enough=enough)
        self._evaluations += found.evaluations
        return found

    def _hypergradient(self, here: Minimum) -> Hypergradient:
        problem, theta, x, reached = self._problem, self._theta, here.x, here.distance
        found = hypergradient(
            problem.lower, problem.upper, theta, x, problem.convexity(theta), reached, self.residual, *self._warm
        )
        self._x, self._smoothness, self._warm = here.x, here.smoothness, (found.adjoint, found.norms)
        self._products += found.products
        return found

    def _descended(self, found: Hypergradient, here: Minimum, size: float) -> bool:
        """Take the first of ever shorter steps that surely lowers upper; False after TRIES that cannot be told."""
        curvature = found.norms["upper hessian"][0]
        value, hidden = self._problem.upper_near(here.x, here.distance, curvature)

        def fell(step: float, x: Tensor, distance: float) -> bool | None:
            """Whether upper is lower by what the step must bring; None where that cannot be told."""
            new, hidden_there = self._problem.upper_near(x, distance, curvature)
            rise = new - value + (self.eta * size) ** 2 * step
            return rise <= 0.0 if abs(rise) >= hidden + hidden_there else None

        def told(step: float, x: Tensor, distance: float) -> bool:
            return fell(step, x, distance) is not None

        step, undecided = self.step, 0
        while undecided < TRIES and step > 0.0:
            theta = self._theta - step * found.gradient
            there = self._minimum(theta, here.x, partial(told, step))
            verdict = fell(step, there.x, there.distance) if there.reached else False
            if verdict:
                upper, _ = self._problem.upper_near(there.x, 0.0, 0.0)
                used = self.accuracy, self.residual, step, self._evaluations, self._products
                self.trace.append(Iteration(upper, size, found.error, *used))
                self._theta, self._x, self._smoothness, self.step = theta, there.x, there.smoothness, step / self.shrink
                self.accuracy, self.residual = self.relax * self.accuracy, self.relax * self.residual
                return True
            step *= self.shrink
            if verdict is None:
                undecided += 1
            else:
                self.step = step
        return False

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; {} before the first `solve`."""
        if not hasattr(self, "_theta"):
            return {}
        return {
            "theta": self._problem.theta_nest(self._theta),
            "x": self._problem.x_nest(self._x),
            "warm": self._warm,
            "trace": [astuple(one) for one in self.trace],
            **{name: getattr(self, name) for name in STATE},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned: the next `solve()` needs no theta and x."""
        self._begin(state["theta"], state["x"])
        self._warm = tuple(state["warm"])
        self.trace = [Iteration(*one) for one in state["trace"]]
        for name in STATE:
            setattr(self, name, state[name])
