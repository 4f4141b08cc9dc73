"""What `tikhon tune` does: check everything, search, run the best and plain training on fresh seeds, write it down."""

from __future__ import annotations

import json
import math
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from tikhon.cli.comparing import Settings, chosen_epochs, described, own_sources, run_missing
from tikhon.cli.engines import chosen_engine, chosen_search, importance
from tikhon.cli.progress import console, say, searching
from tikhon.core.errors import TikhonError
from tikhon.core.files import write_whole
from tikhon.data import Task, load_task
from tikhon.report.code import python_code
from tikhon.report.comparison import BASELINE, Comparison, to_json
from tikhon.report.page import write_page
from tikhon.report.summary import summarise
from tikhon.report.tables import comparison_table, importance_table
from tikhon.studies.cells import Cell, Result
from tikhon.studies.experiment import LEARNING_RATE
from tikhon.studies.store import Store
from tikhon.tuning.search import Budget, Engine, Search, Setting, Trial, best, plain_data
from tikhon.tuning.space import Point, Space, read_rate, read_space

MINUTES = 10.0


@dataclass(frozen=True)
class Effort:
    """How much is searched. learning_rate: as it was written, None for the usual range."""

    learning_rate: str | None
    minutes: float | None
    trials: int | None
    seed: int
    jobs: int


@dataclass(frozen=True)
class Where:
    """Where it runs and where results go."""

    out: Path
    engine: str
    storage: str | None
    address: str | None


@dataclass(frozen=True)
class Found:
    """What came out: the trials of both searches, and the best of each on fresh seeds."""

    search: Search
    trials: list[Trial]
    plain_trials: list[Trial]
    comparison: Comparison
    importance: Mapping[str, float]
    code: str

    @property
    def best(self) -> Trial:
        return best(self.trials)


def run(settings: Settings, effort: Effort, where: Where, *, as_json: bool) -> None:
    """Search, print what was found on standard output, and leave `results.json` and `report.html` in `where.out`."""
    refuse_unfit(settings, effort)
    space = read_space(settings.methods, rates(settings, effort))
    found = find(settings, effort, where, space, load_task(**settings.task, seed=0), plain=as_json)
    finish(found, {}, where.out, as_json=as_json)


def refuse_unfit(settings: Settings, effort: Effort) -> None:
    """Numbers that ask for nothing."""
    if settings.seeds < 1 or effort.jobs < 1:
        raise TikhonError(f"--seeds and --jobs must be at least 1, not {settings.seeds} and {effort.jobs}.")
    if effort.trials is not None and effort.trials < 1:
        raise TikhonError(f"--trials must be at least 1, not {effort.trials}.")
    if effort.minutes is not None and not (math.isfinite(effort.minutes) and effort.minutes > 0):
        raise TikhonError(f"--minutes must be positive, not {effort.minutes}.")


def rates(settings: Settings, effort: Effort) -> Any:
    """The learning rates to search."""
    usual = LEARNING_RATE.get(settings.optimizer, 0.1)  # an unknown optimizer is refused with near misses later
    return read_rate(effort.learning_rate or f"{0.2 * usual:g}..{2.0 * usual:g}")


def find(
    settings: Settings,
    effort: Effort,
    where: Where,
    space: Space,
    task: Task,
    *,
    plain: bool,
    first: Sequence[Point] = (),
) -> Found:
    """Search the space and plain training, then train the best of each on fresh seeds. first: points to try first."""
    setting = Setting(
        settings.task,
        settings.model,
        chosen_epochs(settings),
        settings.batch_size,
        settings.optimizer,
        own_sources(settings, task),
    )
    search = _search("recipes", space, setting, effort.seed, first)
    baseline = _search("plain training", read_space(BASELINE, space.learning_rate), setting, effort.seed)
    baseline.check(task)
    search.check(task)
    owner = f"{socket.gethostname()}:{where.out.resolve()}"
    run_search = chosen_search(where.engine, where.storage, where.address, where.out, owner, effort.jobs)
    with Store(where.out) as store:
        plain_trials = _searched(run_search, baseline, _budget(settings, effort, baseline, baseline), plain)
        trials = _searched(run_search, search, _budget(settings, effort, search, baseline), plain)
        chosen = {BASELINE: best(plain_trials).candidate}
        if best(trials).candidate.recipe != BASELINE:
            chosen[best(trials).candidate.recipe] = best(trials).candidate
        cells = {
            arm: [setting.cell(candidate, seed) for seed in range(settings.seeds)] for arm, candidate in chosen.items()
        }
        in_turn = [cell for pair in zip(*cells.values(), strict=True) for cell in pair]
        run_missing(in_turn, store, chosen_engine("local", None, effort.jobs), effort.jobs, plain=plain)
        results = {arm: {one["seed"]: _stored(store, one) for one in runs} for arm, runs in cells.items()}
    about = {**described(settings, task, in_turn[0]), "learning_rate": None}
    about["recipe"] = best(trials).candidate.recipe
    about |= {
        f"learning_rate_{'of_none' if arm == BASELINE else 'of_recipe'}": candidate.learning_rate
        for arm, candidate in chosen.items()
    }
    return Found(
        search,
        trials,
        plain_trials,
        summarise(about, results),
        importance(search, trials),
        python_code(best(trials).candidate, setting.optimizer, setting.epochs, task.kind),
    )


def _search(name: str, space: Space, setting: Setting, seed: int, first: Sequence[Point] = ()) -> Search:
    """Where no number is open, all points are tried in turn."""
    return Search(name, space, setting, seed, tuple(space.all_points() or first))


def _budget(settings: Settings, effort: Effort, search: Search, baseline: Search) -> Budget:
    """Of one of both searches, from now on: the same for both, unless plain training has no more to try."""
    minutes = MINUTES if effort.minutes is None and effort.trials is None else effort.minutes
    seconds = None if minutes is None else 60.0 * minutes
    if seconds is not None and baseline.space.all_points() is None:
        seconds /= 2.0
    return Budget(_at_most(effort.trials, search.space.all_points()), seconds, after=settings.seeds)


def _at_most(trials: int | None, points: Sequence[Point] | None) -> int | None:
    return trials if points is None else min(len(points), trials or len(points))


def _searched(run_search: Engine, search: Search, budget: Budget, plain: bool) -> list[Trial]:
    with searching(search.name, plain=plain) as show:
        return run_search(search, budget, show)


def _stored(store: Store, cell: Cell) -> Result:
    result = store.get(cell)
    assert result is not None  # run_missing ends only when all are there
    return result


# What is shown --------------------------------------------------------------------------------------------------------


def finish(found: Found, more: Mapping[str, Any], out: Path, *, as_json: bool) -> None:
    """Write and print what was found. more: further entries of the JSON object."""
    text = json.dumps({**more, **as_data(found)}, indent=1, allow_nan=False)
    write_whole(text + "\n", out / "results.json")
    write_page(found.comparison, out / "report.html")
    if as_json:
        print(text)
        say(f"Report: {out / 'report.html'}")
        return
    screen = console()
    for line in summary(found):
        screen.print(Text(line))
    screen.print()
    screen.print(comparison_table(found.comparison))
    if found.importance:
        screen.print()
        screen.print(importance_table(found.importance))
    print(f"\n{found.code}\nReport: {out / 'report.html'}")


def as_data(found: Found) -> dict[str, Any]:
    """The whole search as plain values."""
    search = found.search
    return {
        "search": {
            "space": search.space.text,
            "learning_rate": str(search.space.learning_rate),
            "seed": search.seed,
            "seeds": list(search.seeds),
        },
        "best": plain_data(found.best),
        "plain": plain_data(best(found.plain_trials)),
        "comparison": to_json(found.comparison),
        "importance": dict(found.importance),
        "code": found.code,
        "trials": [plain_data(trial) for trial in found.trials],
        "plain_trials": [plain_data(trial) for trial in found.plain_trials],
    }


def summary(found: Found) -> list[str]:
    """The sentences above the table."""
    chosen, plain = found.best, best(found.plain_trials)
    name = (
        chosen.candidate.recipe if chosen.candidate.recipe != BASELINE else "none: no method helped on validation data"
    )
    return [
        f"Best of {_counted(found.trials)}: {name}",
        f"with the learning rate {chosen.candidate.learning_rate:g}; "
        f"plain training, best of {_counted(found.plain_trials)}, has {plain.candidate.learning_rate:g}.",
        f"Validation {found.comparison.task['metric']} in the search: {chosen.score:.3f}, plain {plain.score:.3f}.",
    ]


def _counted(trials: Sequence[Trial]) -> str:
    states = Counter(str(trial.state) for trial in trials)
    words = {"stopped": "stopped early", "diverged": "diverged", "lost": "lost with their processes"}
    others = [f"{states[state]} {word}" for state, word in words.items() if states[state]]
    return f"{len(trials)} trial{'s' * (len(trials) > 1)}" + (f" ({', '.join(others)})" if others else "")
