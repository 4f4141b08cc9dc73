"""Does a search that knows of one peak find it more often than sequential halving and equal shares?"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tikhon.core.step import seed_for
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study
from tikhon.tuning.unimodal_bandit import UnimodalBanditSearch

PLACES, BUDGETS, TRIALS = 64, (400, 1000, 2000, 4000), 50
DECAYS, DECAY_BUDGET, DECAY_TRIALS, DECAY_POOL = 64, 600, 20, 500
Array = NDArray[np.float64]
Draws = Callable[[int, int], Array]
"""(place, count) -> so many of its values."""


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Fifty random peaks over 64 places at each of four budgets, then a weight decay for a ridge regression.

    Measures: error_400 to error_4000 (share of peaks that were missed, at noise of standard deviation 1), regret (of
    64 weight decays, 600 validation losses: how much worse the one that was chosen is than the best, in percent of the
    best), validation (-mean error).
    """
    search = SEARCHES[settings["search"]]
    rng = np.random.default_rng(seed_for("peaks", seed))
    errors = {}
    for budget in BUDGETS:
        missed = 0
        for trial in range(TRIALS):
            means = _peak(rng)
            noise = np.random.default_rng(seed_for("noise", seed, budget, trial))
            missed += search(_noisy(means, noise), PLACES, budget) != int(np.argmax(means))
        errors[f"error_{budget}"] = missed / TRIALS
        report(budget / (2 * BUDGETS[-1]))
    regret = _regret(search, seed)
    report(1.0)
    return {**errors, "regret": regret, "validation": -float(np.mean(list(errors.values())))}


def _peak(rng: np.random.Generator) -> Array:
    """Means that fall by 0.1 to 0.3 from place to place on both sides of a random peak."""
    falls = rng.uniform(0.1, 0.3, PLACES).cumsum()
    peak = int(rng.integers(PLACES))
    return np.concatenate([-falls[:peak][::-1], [0.0], -falls[peak:-1]])


def _noisy(means: Array, rng: np.random.Generator) -> Draws:
    return lambda place, count: means[place] + rng.standard_normal(count)


def _regret(search: Callable[[Draws, int, int], int], seed: int) -> float:
    """Ridge regression of 20 features on 30 new samples, judged on 10 more: a loss that is mostly noise."""
    rng = np.random.default_rng(seed_for("decay", seed))
    truth = rng.standard_normal(20) / math.sqrt(20.0)
    inputs = rng.standard_normal((DECAY_POOL, 40, 20))
    values = inputs @ truth + rng.standard_normal((DECAY_POOL, 40))
    fit, held = inputs[:, :30], inputs[:, 30:]
    gram, right = fit.transpose(0, 2, 1) @ fit, fit.transpose(0, 2, 1) @ values[:, :30, None]
    pool = []
    for strength in np.logspace(-2.0, 4.0, DECAYS):
        missed = (held @ np.linalg.solve(gram + strength * np.eye(20), right))[..., 0] - values[:, 30:]
        pool.append((missed**2).mean(axis=1))
    losses = np.array(pool)
    means = losses.mean(axis=1)
    found = [
        search(lambda place, count: -rng.choice(losses[place], count), DECAYS, DECAY_BUDGET)
        for _ in range(DECAY_TRIALS)
    ]
    return float(100.0 * (means[found].mean() / means.min() - 1.0))


def _unimodal(draws: Draws, places: int, budget: int) -> int:
    found = UnimodalBanditSearch(places, budget).search(lambda place: draws(place, 1)[0]).index
    assert isinstance(found, int)
    return found


def _halving(draws: Draws, places: int, budget: int) -> int:
    """Rounds of equal budget, after each of which the better half stays (Karnin, Koren and Somekh 2013)."""
    rounds = math.ceil(math.log2(places))
    sums, counts, left = np.zeros(places), np.zeros(places), np.arange(places)
    for _ in range(rounds):
        each = max(1, budget // (len(left) * rounds))
        sums[left] += [draws(place, each).sum() for place in left.tolist()]
        counts[left] += each
        left = left[np.argsort(-sums[left] / counts[left])[: (len(left) + 1) // 2]]
    return int(left[0])


def _equal(draws: Draws, places: int, budget: int) -> int:
    return int(np.argmax([draws(place, budget // places).mean() for place in range(places)]))


SEARCHES = {"equal": _equal, "halving": _halving, "unimodal": _unimodal}

study = Study(
    question="Does unimodal search miss fewer peaks than sequential halving and equal shares at every "
    "budget, and choose a better weight decay?",
    setting="64 places, means falling by 0.1 to 0.3 a place, noise of 1; ridge regression of 20 features on 30 samples",
    run=run,
    arms={name: [{"search": name}] for name in SEARCHES},
    expectations=[
        *[
            Expectation("unimodal", other, f"error_{budget}", "lower")
            for budget in BUDGETS
            for other in ("halving", "equal")
        ],
        Expectation("unimodal", "halving", "regret", "lower"),
        Expectation("unimodal", "equal", "regret", "lower"),
    ],
    seeds=10,
)
