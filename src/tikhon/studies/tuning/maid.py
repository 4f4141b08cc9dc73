"""Does MAID reach the validation loss of descent at a fixed, high accuracy by fewer iterations of the lower problem?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tikhon.core.step import seed_for
from tikhon.math.bilevel import hypergradient
from tikhon.math.iterations import Minimum, minimised
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study
from tikhon.tuning.maid import MAID

STEPS, FEATURES, SAMPLES, LENGTH = 20, 10, 40, 64
ACCURACY = 1e-8
DOUBLE = torch.float64


@dataclass(frozen=True)
class Task:
    """A lower problem with its convexity, an upper one, and where to begin."""

    lower: Callable[[Tensor, Tensor], Tensor]
    upper: Callable[[Tensor], Tensor]
    convexity: float
    theta: Tensor
    x: Tensor


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Twenty steps on hyper-parameters from a first step that is far too short or far too long.

    Measures: loss (validation loss at the end, with the lower problem solved to 1e-9, as a share of that at the start),
    log_evaluations (log10 of gradients of the lower problem), validation (-loss).
    """
    task = TASKS[settings["task"]](torch.Generator().manual_seed(seed_for(settings["task"], seed)))
    theta, evaluations = DESCENTS[settings["descent"]](task, settings["step"])
    report(1.0)
    loss = _loss(task, theta) / _loss(task, task.theta)
    return {"loss": loss, "log_evaluations": math.log10(evaluations), "validation": -loss}


def _maid(task: Task, step: float) -> tuple[Tensor, int]:
    """theta after twenty steps, and how many gradients of the lower problem they took."""
    found = MAID(task.lower, task.upper, task.convexity, step=step).solve(task.theta, task.x, iterations=STEPS)
    return found.theta, found.trace[-1].evaluations


def _fixed(task: Task, step: float) -> tuple[Tensor, int]:
    """The same with hypergradients and values that are exact to 1e-8: the same steps, by Armijo's rule."""

    def solved(theta: Tensor, x: Tensor, smoothness: float) -> Minimum:
        return minimised(lambda at: task.lower(theta, at), x, task.convexity, ACCURACY, smoothness)

    theta, here = task.theta, solved(task.theta, task.x, 0.0)
    evaluations = here.evaluations
    for _ in range(STEPS):
        found = hypergradient(task.lower, task.upper, theta, here.x, task.convexity, ACCURACY, ACCURACY)
        slope = float(found.gradient @ found.gradient)
        while True:
            there = solved(theta - step * found.gradient, here.x, here.smoothness)
            evaluations += there.evaluations
            if there.reached and task.upper(there.x) <= task.upper(here.x) - 1e-8 * step * slope:
                break
            step *= 0.5
        theta, here, step = theta - step * found.gradient, there, 2.0 * step
    return theta, evaluations


def _loss(task: Task, theta: Tensor) -> float:
    found = minimised(lambda x: task.lower(theta, x), task.x, task.convexity, 1e-9)
    return float(task.upper(found.x))


def _ridge(generator: torch.Generator) -> Task:
    """Linear regression, half of whose features say nothing; a weight of the penalty for each."""
    truth = torch.randn(FEATURES, generator=generator, dtype=DOUBLE)
    truth[FEATURES // 2 :] = 0.0

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(count, FEATURES, generator=generator, dtype=DOUBLE)
        return inputs, inputs @ truth + 2.0 * torch.randn(count, generator=generator, dtype=DOUBLE)

    (inputs, values), (held, wanted) = drawn(SAMPLES), drawn(10 * SAMPLES)
    convexity = float(torch.linalg.eigvalsh(inputs.T @ inputs / SAMPLES)[0])
    return Task(
        lambda theta, x: 0.5 * (inputs @ x - values).square().mean() + 0.5 * (theta.exp() * x.square()).sum(),
        lambda x: 0.5 * (held @ x - wanted).square().mean(),
        convexity,
        torch.zeros(FEATURES, dtype=DOUBLE),
        torch.zeros(FEATURES, dtype=DOUBLE),
    )


def _variation(generator: torch.Generator) -> Task:
    """Steps of random height in noise; weight and smoothing of the total variation. theta: logarithms of both."""
    places = torch.randint(LENGTH, (6,), generator=generator)
    jumps = torch.zeros(LENGTH, dtype=DOUBLE).index_add(0, places, torch.randn(6, generator=generator, dtype=DOUBLE))
    clean = jumps.cumsum(0)
    noisy = clean + 0.3 * torch.randn(LENGTH, generator=generator, dtype=DOUBLE)

    def lower(theta: Tensor, x: Tensor) -> Tensor:
        weight, width = theta.exp()
        variation: Tensor = weight * (x.diff().square() + width.square()).sqrt().sum()
        return 0.5 * (x - noisy).square().sum() + variation

    return Task(
        lower,
        lambda x: 0.5 * (x - clean).square().sum(),
        1.0,
        torch.tensor([-3.0, -1.0], dtype=DOUBLE),
        torch.zeros(LENGTH, dtype=DOUBLE),
    )


TASKS = {"ridge": _ridge, "variation": _variation}
DESCENTS = {"fixed": _fixed, "maid": _maid}
FIRST = {"short": 1e-2, "long": 20.0}

study = Study(
    question="From first steps that are far too short or too long, does MAID end within 1% of the validation loss of "
    "the same descent at an accuracy of 1e-8, by three times fewer iterations of the lower problem?",
    setting="20 steps on 10 weights of a ridge regression, or on weight and smoothing of the total variation of a "
    "signal of 64",
    run=run,
    arms={
        f"{kind} {task} {first}": [{"task": task, "descent": kind, "step": step}]
        for task in TASKS
        for first, step in FIRST.items()
        for kind in DESCENTS
    },
    expectations=[
        one
        for task in TASKS
        for first in FIRST
        for one in (
            Expectation(f"maid {task} {first}", f"fixed {task} {first}", "loss", "lower", margin=-0.01),
            Expectation(f"maid {task} {first}", f"fixed {task} {first}", "log_evaluations", "lower", math.log10(3.0)),
        )
    ],
)
