"""Regularised solver heuristics: a neural ODE that learns to be easy to solve, from what its solver knows anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tikhon.blocks.structure.neural_ode import NeuralODE
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms


def accumulated(estimates: Tensor, sizes: Tensor, average: bool = False) -> Tensor:
    """sum_j e_j h_j of every sample; with `average`, divided by the number of its steps.

    estimates, sizes: (J, B), of the solver's steps, both 0 where a sample took none. Returns (B,). Source: Pal, Ma,
    Shah, Rackauckas 2021, arXiv 2105.03918.

    >>> accumulated(torch.tensor([[0.5], [1.0]]), torch.tensor([[0.2], [0.8]]))
    tensor([0.9000])
    """
    total = (estimates * sizes).sum(0)
    return total / (sizes > 0.0).sum(0).clamp_min(1) if average else total


def at_random_time(estimates: Tensor, sizes: Tensor, draws: Tensor) -> Tensor:
    """The estimate of the one step that contains a random time, times the length of the whole way.

    estimates, sizes: (J, B); draws: (B,), uniform in [0, 1), the time as a share of the way. Returns (B,), with
    `accumulated` as its mean over draws. Source: Pal, Edelman, Rackauckas 2023, arXiv 2303.02262.

    >>> at_random_time(torch.tensor([[0.5], [1.0]]), torch.tensor([[0.2], [0.8]]), torch.tensor([0.3]))
    tensor([1.])
    """
    ends = sizes.cumsum(0)
    total = sizes.sum(0)
    inside = (draws * total < ends) & (draws * total >= ends - sizes)
    return (estimates * inside).sum(0) * total


class SolverHeuristicReg(Method):
    """Penalise the local errors, or the stiffness, that the solver of a neural ODE estimates while it solves.

    Use it where a model with `NeuralODE` layers is slow: the flow that reaches the same outputs with longer steps is
    preferred, in training and afterwards. Not to identify a system from measured trajectories: what oscillates is
    damped.

        loss = task + strength * mean_i sum_j e_ij h_ij

    h_ij: lengths of the steps of sample i; e_ij: the estimated error as a share of the tolerance ("error"), or
    ||k7 - k6|| / ||y7 - y6||, the size of the largest eigenvalue ("stiffness"); gradients as of `NeuralODE`.

    strength: at least 0, to be searched: 1; heuristic: "error" or "stiffness"; times: "all" steps, or the one at a
    "random" time of every sample, equal on average; average: divide by the number of steps, as the official code does
    (there with a strength that falls from 100 to 10, `tikhon.exponential(100, 10)`). Several blocks add up; of a block
    that is called several times in a pass the first call counts.

    Cost: none to speak of: the solver computes the estimates anyway, and the way back through them is short.
    Reference: Pal, Ma, Shah, Rackauckas 2021, arXiv 2105.03918; at a random time: Pal, Edelman, Rackauckas 2023, arXiv
    2303.02262. As in their code, an error is taken relative to the tolerance, and each estimate is weighted by its
    step. Here lengths of steps have no gradient, and at a random time the state before the step has one.

    >>> recipe = tikhon.Recipe(tikhon.SolverHeuristicReg(strength=1.0))
    """

    card = Card(
        title="Opening the Blackbox: Accelerating Neural Differential Equations by Regularizing Internal Solver "
        "Heuristics",
        authors="Pal, Ma, Shah, Rackauckas",
        year=2021,
        arxiv="2105.03918",
        problems=("speed", "stability"),
        formula=r"L = \mathrm{task} + \lambda\,\tfrac1n\sum_i\sum_j E_{ij}\,h_{ij}",
        claim="Halves the time of predictions of neural differential equations, without higher-order derivatives.",
        helps="Neural ODEs as layers of a predictor, whose evaluations grow in training.",
        hurts="Identifying a system: fast dynamics are damped. Large strengths, which cost accuracy.",
        cost="None to speak of: the solver computes the estimates anyway.",
    )
    needs = frozenset({"blocks"})
    exempt = {"compile": "how many steps a solver takes depends on the data"}

    def __init__(
        self,
        strength: Strength = 1.0,
        heuristic: Literal["error", "stiffness"] = "error",
        times: Literal["all", "random"] = "all",
        average: bool = False,
    ) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        if heuristic not in ("error", "stiffness"):
            raise TikhonError(f"heuristic is 'error' or 'stiffness', not {heuristic!r}.")
        if times not in ("all", "random"):
            raise TikhonError(f"times is 'all' or 'random', not {times!r}.")
        if average and times == "random":
            raise TikhonError("One step at a random time has no average over steps: leave average=False.")
        self.heuristic, self.times, self.average = heuristic, times, average

    def check(self, model: nn.Module) -> None:
        if not self.taps(model):
            raise TikhonError(
                f"{self.key} found no tikhon.NeuralODE in {type(model).__name__}: it reads the estimates of that "
                "block's solver."
            )

    def taps(self, model: nn.Module) -> Sequence[str]:
        blocks = [name for name, module in model.named_modules() if isinstance(module, NeuralODE)]
        return [f"{name}.estimates" if name else "estimates" for name in blocks]

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        solutions = [step.tap(name).output for name in self.taps(step.model)]
        values = []
        for solution in solutions:
            estimates = solution.errors if self.heuristic == "error" else solution.stiffness
            if self.times == "all":
                values.append(accumulated(estimates, solution.sizes, self.average))
            else:
                sizes = solution.sizes
                draws = torch.rand(len(output), generator=step.generator(sizes.device), device=sizes.device)
                values.append(at_random_time(estimates, sizes, draws.to(sizes.dtype)))
        return {self.heuristic: Term(torch.stack(values).sum(0), self.strength)}
