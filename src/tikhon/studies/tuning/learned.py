"""Learned strengths in one run, against searches over twenty: how good, and at what cost?

Four tasks, all with the same validation data: the searches choose the run with the best validation metric, the one run
follows the hypergradient of the validation loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tikhon.core.fit import fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.strength import Learned, Strength
from tikhon.data import Task, build_model, load_task
from tikhon.methods.targets.elr import ELR
from tikhon.methods.targets.label_smoothing import LabelSmoothing
from tikhon.methods.weights.l2 import L2
from tikhon.studies.experiment import Report, accuracy, base_loss, make_optimizer, r_squared
from tikhon.studies.study import Expectation, Settings, Study

RUNS, EVERY = 20, 4
RATE = {"digits with wrong labels": 0.1, "few digits": 0.1, "mnist1d": 0.05, "diabetes": 0.02}


@dataclass(frozen=True)
class Problem:
    """A task, what is trained on it for how long, and the strengths: their methods and the ranges of all searches."""

    task: Mapping[str, Any]
    epochs: int
    methods: Callable[..., Sequence[Method]]
    ranges: Sequence[tuple[float, float]]
    batch_size: int = 64


PROBLEMS = {
    "digits with wrong labels": Problem(
        {"source": "digits", "label_noise": 0.4}, 24, lambda strength: [ELR(strength)], [(0.1, 30.0)], 128
    ),
    "few digits": Problem(
        {"source": "digits", "train_size": 100}, 30, lambda strength: [L2(strength)], [(1e-5, 1.0)], 32
    ),
    "mnist1d": Problem(
        {"source": "mnist1d", "train_size": 500},
        15,
        lambda decay, smoothing: [L2(decay), LabelSmoothing(smoothing)],
        [(1e-5, 0.1), (0.01, 0.9)],
    ),
    "diabetes": Problem({"source": "diabetes"}, 40, lambda strength: [L2(strength)], [(1e-4, 10.0)], 64),
}


def middle(problem: Problem) -> list[float]:
    """Where learning and searching begin: half-way, in logarithms."""
    return [math.sqrt(low * high) for low, high in problem.ranges]


def grid(problem: Problem) -> Iterator[tuple[float, ...]]:
    """RUNS points, even in logarithms; with two strengths five by four."""
    counts = [RUNS] if len(problem.ranges) == 1 else [5, 4]
    axes = [
        [low * (high / low) ** (place / (count - 1)) for place in range(count)]
        for (low, high), count in zip(problem.ranges, counts, strict=True)
    ]
    return product(*axes)


class Trainer:
    """Trainings of one problem with one seed: they differ in their strengths alone. Counts their seconds."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.problem, self.seed, self.seconds = name, PROBLEMS[name], seed, 0.0
        self.data: Task = load_task(**self.problem.task, seed=seed)

    def __call__(self, strengths: Sequence[Strength]) -> tuple[float, float]:
        """(validation, test): accuracy or R^2 at the end of training."""
        task, problem = self.data, self.problem
        recipe = Recipe(*problem.methods(*strengths), base=base_loss(task), seed=self.seed)
        if isinstance(strengths[0], Learned):
            recipe.tune([(task.validation.inputs, task.validation.target)], every=EVERY)
        model, history = fit(
            build_model("mlp", task, seed=self.seed),
            recipe,
            (task.train.inputs, task.train.target),
            epochs=problem.epochs,
            batch_size=problem.batch_size,
            optimizer=make_optimizer({"optimizer": "sgd", "learning_rate": RATE[self.name]}),
            seed=self.seed,
        )
        self.seconds += history.seconds
        model.eval()
        measure = accuracy if task.kind == "classes" else r_squared
        validation, test = (
            measure(model(split.inputs).detach(), split.target) for split in (task.validation, task.test)
        )
        return validation, test


def by_grid(train: Trainer) -> tuple[float, float]:
    return max(train(point) for point in grid(train.problem))


def by_optuna(train: Trainer) -> tuple[float, float]:
    """Twenty trials of the tree-structured Parzen estimator."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seen: list[tuple[float, float]] = []

    def objective(trial: Any) -> float:
        point = [trial.suggest_float(str(k), *range_, log=True) for k, range_ in enumerate(train.problem.ranges)]
        seen.append(train(point))
        return seen[-1][0]

    search = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=train.seed))
    search.optimize(objective, n_trials=RUNS)
    return max(seen, key=lambda one: one[0])


def learned(train: Trainer) -> tuple[float, float]:
    values = middle(train.problem)
    return train([Learned(start, *range_) for start, range_ in zip(values, train.problem.ranges, strict=True)])


def unchanged(train: Trainer) -> tuple[float, float]:
    return train(middle(train.problem))


ARMS: Mapping[str, Callable[[Trainer], tuple[float, float]]] = {
    "learned in one run": learned,
    "its start, not learned": unchanged,
    "grid of 20 runs": by_grid,
    "20 trials of Optuna": by_optuna,
}


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Measures: of each task the test metric (accuracy; of diabetes R^2), and the seconds of all trainings together as
    their logarithm to base 10, `cost`."""
    measures: dict[str, float] = {}
    seconds, validations = 0.0, []
    for place, name in enumerate(PROBLEMS, start=1):
        train = Trainer(name, seed)
        validation, measures[name] = ARMS[settings["arm"]](train)
        seconds += train.seconds
        validations.append(validation)
        report(place / len(PROBLEMS))
    measures |= {"seconds": seconds, "cost": math.log10(seconds), "validation": sum(validations) / len(validations)}
    return measures


SEARCHES = ("grid of 20 runs", "20 trials of Optuna")
MARGINS = {"digits with wrong labels": -0.02, "few digits": -0.02, "mnist1d": -0.02, "diabetes": -0.05}

study = Study(
    question="Is one run with learned strengths as good as searches over twenty runs, at a tenth of their cost?",
    arms={arm: [{"arm": arm}] for arm in ARMS},
    run=run,
    expectations=[
        *[
            Expectation("learned in one run", other, name, margin=MARGINS[name])
            for other in SEARCHES
            for name in MARGINS
        ],
        *[Expectation("learned in one run", other, "cost", direction="lower", margin=1.0) for other in SEARCHES],
    ],
    setting=(
        "ELR on digits with 40% wrong labels, L2 on 100 digits, L2 and label smoothing on 500 of MNIST-1D, "
        "L2 on diabetes; MLPs, SGD, 120 to 210 steps, tuned at every fourth"
    ),
)
