"""Monge gap: a map is pulled towards the cheapest one that carries its inputs to the same places."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.kernels import squared_distances
from tikhon.math.precision import at_least_float32
from tikhon.math.sinkhorn import entropic_cost

Cost = Callable[[Tensor, Tensor], Tensor]
"""(x (n, d), y (m, d)) -> the cost of carrying every x to every y, (n, m)."""


def monge_gap(
    x: Tensor,
    y: Tensor,
    epsilon: float = 0.05,
    relative: bool = False,
    cost: Cost = squared_distances,
    iterations: int = 100,
) -> Tensor:
    """mean_i c(x_i, y_i) - W_epsilon(x, y): how much dearer than needed y_i = T(x_i) carries the sample x to y.

        W_epsilon = min_P <P, C> + epsilon sum P log P,   P 1 = P^T 1 = 1/n

    x, y: (n, d); epsilon: positive; relative: in units of the mean cost, which is then held fixed, in place of the
    cost's own; cost: (x, y) -> (n, n); iterations: of Sinkhorn, in the log domain. Returns a scalar, at least
    epsilon log n, which it tends to as epsilon vanishes and y is the cheapest order; differentiable once, by the
    envelope theorem. Stopped early, the gap is too large by the square of what the potentials lack.
    Source: Uscidda, Cuturi 2023, arXiv 2302.04953.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> monge_gap(x, x, 0.001), monge_gap(x, x.flip(0), 0.001)
    (tensor(0.0007), tensor(1.0007))
    """
    if x.ndim != 2 or x.shape != y.shape or not len(x):
        raise TikhonError(
            f"The Monge gap compares x and y = T(x), both (n, d), not {tuple(x.shape)} and {tuple(y.shape)}."
        )
    costs = cost(at_least_float32(x), at_least_float32(y))
    scale = costs.detach().mean().clamp_min(torch.finfo(costs.dtype).tiny) if relative else 1.0
    even = costs.new_full((len(x),), 1.0 / len(x))
    return costs.diagonal().mean() - entropic_cost(costs, even, even, epsilon * scale, iterations)


class MongeGap(Method):
    """A penalty on how much dearer the model carries its inputs to its outputs than it needed to.

    Use it where the model is a map of a space into itself and should move its inputs no further than needed:
    translation between domains, transport of populations. Leave it out where inputs and outputs are not comparable. It
    reads the inputs and the outputs, never the targets; for unpaired data, add the function `monge_gap` to a divergence
    between distributions.

        loss += strength (mean_i ||x_i - T(x_i)||^2 - W_epsilon(x, T(x)))

    strength: lambda, at least 0; epsilon: positive, of the entropy, in units of the batch's mean cost; cost: a function
    of x (B, d) and y (B, d) that gives (B, B), by default the squared distance; iterations: of Sinkhorn, a fixed
    number, so that nothing waits for the device. Inputs and outputs of several axes are flattened.

    Cost: a matrix of B x B costs and `iterations` passes over it, without graph.
    Reference: Uscidda, Cuturi 2023, arXiv 2302.04953.

    >>> method = tikhon.MongeGap(strength=0.1)
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="The Monge Gap: A Regularizer to Learn All Transport Maps",
        authors="Uscidda, Cuturi",
        year=2023,
        arxiv="2302.04953",
        problems=("shift",),
        formula=r"L \mathrel{+}= \lambda\left(\tfrac1n\sum_i c(x_i,T(x_i)) - W_{c,\varepsilon}(x,T(x))\right)",
        claim="Learns optimal maps for any cost and any network, better than networks that are convex by design.",
        helps="Maps of a space into itself that should move points no further than needed.",
        hurts="Inputs and outputs that are not comparable; small batches.",
        cost="A matrix of costs of a batch and a hundred passes over it.",
    )
    needs = frozenset({"values"})
    exempt = {
        "accumulation": "the gap compares the samples of a batch",
        "permutation": "the gap is a property of the batch",
    }

    def __init__(
        self,
        strength: Strength = 1.0,
        epsilon: Strength = 0.05,
        cost: Cost = squared_distances,
        iterations: int = 100,
    ) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.epsilon = checked("epsilon", epsilon, low=1e-6)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise TikhonError(f"iterations must be a whole number of at least 1, not {iterations!r}.")
        self.cost, self.iterations = cost, iterations

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        inputs = step.inputs
        if not isinstance(inputs, Tensor):
            raise TikhonError(f"{self.key} needs inputs that are one tensor, not {type(inputs).__name__}.")
        x, y = inputs.reshape(len(inputs), -1), output.reshape(len(output), -1)
        if x.shape != y.shape:
            raise TikhonError(
                f"{self.key} needs outputs of as many values as the inputs: they have {tuple(y.shape)} and "
                f"{tuple(x.shape)}, flattened. Read the model's output as a point of the inputs' space with output=."
            )
        gap = monge_gap(x, y, step.value(self.epsilon), True, self.cost, self.iterations)
        return {"gap": Term(gap, self.strength, per_sample=False)}
