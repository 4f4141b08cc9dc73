"""Optuna as the engine of a search: its samplers draw, its pruners stop, its databases remember.

    trials = search(what, Budget(trials=50), show, storage="postgresql://...", owner="me", jobs=2)

This process alone talks to the database, and workers train; several commands on one database work on the same search.
Every seed that has run is stored at once. Trials that a killed process left running are failed and drawn once more,
with the seeds that they had finished.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import fmean
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tikhon.core.errors import TikhonError
from tikhon.data.seeds import derive
from tikhon.studies.cells import Cell, Event, Result, RunCells
from tikhon.studies.workers import run_cells
from tikhon.tuning.search import STARTUP, Budget, Search, State, Trial, Update, run
from tikhon.tuning.space import Candidate, Range

BEAT, GRACE = 10, 600
"""Seconds between signs of life, and after how many without one a trial of another command counts as left behind."""

ATTEMPTS = 2
"""How often a trial is begun that is left behind: what kills its process may do so again."""

ENOUGH = 10
"""So many finished trials say something about importance."""


def search(
    what: Search,
    budget: Budget,
    on_update: Callable[[Update], None],
    *,
    storage: str,
    owner: str,
    jobs: int,
    engine: RunCells = run_cells,
) -> list[Trial]:
    """Run a search on Optuna, as `Engine` says, going on from what the database holds of it.

    storage: URL of a database. owner: names this command among those on one database, the same when it is given again;
    what it left running is certainly dead. engine: where trials are trained.
    """
    with quietly():
        running = _Running(what, budget, on_update, open_study(storage, what), owner, jobs)
        engine(run, running.cells(), jobs=jobs, on_result=running.on_result, on_event=running.on_event)
        return running.trials()


class _Running:
    """A search in this process: what to run next, and what to do with a result."""

    def __init__(
        self,
        what: Search,
        budget: Budget,
        on_update: Callable[[Update], None],
        opened: tuple[optuna.Study, optuna.storages.RDBStorage],
        owner: str,
        jobs: int,
    ) -> None:
        self._what, self._budget, self._on_update, self._owner, self._jobs = what, budget, on_update, owner, jobs
        self._study, self._storage = opened
        self._open: dict[int, tuple[optuna.Trial, Candidate]] = {}
        self._ready: deque[int] = deque()
        self._beats: dict[int, float] = {}
        budget.spent += give_up(self._study, owner) / jobs
        self._sum_up()

    def cells(self) -> Iterator[Cell | None]:
        """The next seed of a trial that is under way, or the first of a new one; None where nothing may begin."""
        while True:
            if not self._ready and not self._begin_trial():
                yield None
            while self._ready:
                yield self._cell(self._ready.popleft())

    def _begin_trial(self) -> bool:
        """Draw a trial where the budget allows it."""
        optuna.storages.fail_stale_trials(self._study)  # of commands that have given no sign of life for long
        again = draw_again(self._study)
        drawn = drawn_in(self._study)
        runs = [second for trial in drawn for second in trial.user_attrs.get("seconds", ())]
        allowed = self._budget.allows(len(drawn) - again, runs, len(self._what.seeds), self._jobs)
        if allowed:
            self._draw(len(drawn) - again)
        return allowed

    def on_result(self, cell: Cell, result: Result) -> None:
        trial, _ = self._open[cell["trial"]]
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another command has given it up
            seen = trial.user_attrs
            trial.set_user_attr("seconds", [*seen.get("seconds", ()), result["seconds"]])
            if "failed" in result:
                trial.set_user_attr("failed", result["failed"])
            else:
                scores = [*seen.get("scores", ()), result["score"]]
                trial.report(fmean(scores), step=len(scores) - 1)
                trial.set_user_attr("scores", scores)
        self._go_on(trial)
        self._sum_up()

    def on_event(self, event: Event) -> None:
        """A sign of life of the trial, for other commands on the database."""
        number, now = event.cell["trial"], time.monotonic()
        if number in self._open and now - self._beats.get(number, -math.inf) >= BEAT:
            self._beats[number] = now
            self._storage.record_heartbeat(self._open[number][0]._trial_id)
        self._show()

    def trials(self) -> list[Trial]:
        return trials_of(self._study)

    def _cell(self, number: int) -> Cell:
        trial, candidate = self._open[number]
        done = len(trial.user_attrs.get("scores", ()))
        return {**self._what.setting.cell(candidate, self._what.seeds[done]), "trial": number}

    def _draw(self, place: int) -> None:
        """A new trial, which depends on the seed, its place in the search, and what was seen before, alone."""
        self._study.sampler = sampler(self._what, place, self._jobs)
        enqueue(self._study, self._what, place, self._owner)
        trial = self._study.ask()
        self._open[trial.number] = trial, draw(trial, self._what, self._owner)
        self._go_on(trial)

    def _go_on(self, trial: optuna.Trial) -> None:
        """Run the next seed, or end the trial."""
        seen = trial.user_attrs
        scores = seen.get("scores", ())
        if len(scores) == len(self._what.seeds):
            outcome: dict[str, Any] = {"values": fmean(scores)}
        elif "failed" in seen or (scores and trial.should_prune()):
            outcome = {"state": TrialState.PRUNED}
        else:
            self._ready.append(trial.number)
            return
        self._study.tell(trial, skip_if_finished=True, **outcome)
        del self._open[trial.number]

    def _sum_up(self) -> None:
        self._trials, self._best = summed_up(self._study)

    def _show(self) -> None:
        self._on_update(Update(self._trials, self._best, self._budget.fraction(self._trials)))


# What a database holds of a search -----------------------------------------------------------------------------------


def open_study(url: str, what: Search) -> tuple[optuna.Study, optuna.storages.RDBStorage]:
    """The study of a search in the database at `url`, made if need be, and the database."""
    try:
        try:
            storage = _database(url)
        except sqlalchemy.exc.DatabaseError:  # another command may have made the tables at the same moment
            time.sleep(1.0)
            storage = _database(url)
        study = optuna.create_study(
            storage=storage,
            study_name=f"tikhon, {what.name}, {what.identity}",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
            load_if_exists=True,
        )
    except Exception as error:  # of whichever database and its driver
        first = str(error).strip().splitlines()[0]
        raise TikhonError(
            f"The database {_without_password(url)} cannot be used ({type(error).__name__}: {first}). Write a URL "
            "such as sqlite:///trials.db or postgresql://host/name, and install the database's Python driver."
        ) from error
    return study, storage


def _database(url: str) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(url, heartbeat_interval=BEAT, grace_period=GRACE)


def give_up(study: optuna.Study, owner: str) -> float:
    """Fail what the owner left running; the seconds that all its runs took."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("owner") == owner:
            study.tell(trial.number, state=TrialState.FAIL)
    mine = [trial for trial in drawn_in(study) if trial.user_attrs.get("owner") == owner]
    return float(sum(second for trial in mine for second in trial.user_attrs.get("seconds", ())))


def draw_again(study: optuna.Study) -> int:
    """Have trials that were left behind drawn again; how many wait for that."""
    for trial in drawn_in(study):
        attempt = trial.user_attrs.get("attempt", 1)
        if trial.state == TrialState.FAIL and attempt < ATTEMPTS:
            again = {"again": trial.user_attrs.get("again", trial.number), "attempt": attempt + 1}
            seen = trial.user_attrs.get("scores", ())
            study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    intermediate_values={at: one for at, one in trial.intermediate_values.items() if at < len(seen)},
                    user_attrs={**trial.user_attrs, **again},
                    system_attrs=trial.system_attrs,  # what it was told to try first
                )
            )
    return sum(trial.state == TrialState.WAITING for trial in drawn_in(study))


def drawn_in(study: optuna.Study) -> list[FrozenTrial]:
    """The trials in the order in which they were drawn; one that was drawn again counts once, in its old place."""
    by_first: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        by_first[trial.user_attrs.get("again", trial.number)] = trial
    return [by_first[first] for first in sorted(by_first)]


def trials_of(study: optuna.Study) -> list[Trial]:
    """The trials that have ended, as plain values."""
    drawn = [trial for trial in drawn_in(study) if trial.state.is_finished()]
    return [_plain(number, trial) for number, trial in enumerate(drawn)]


def summed_up(study: optuna.Study) -> tuple[int, float | None]:
    """How many trials have ended, and the best score of those that ran to their end."""
    trials = trials_of(study)
    return len(trials), max((trial.score for trial in trials if trial.state == "finished"), default=None)


def _plain(number: int, trial: FrozenTrial) -> Trial:
    seen = trial.user_attrs
    return Trial(
        number,
        Candidate(seen.get("recipe", ""), seen.get("learning_rate", 0.0)),
        dict(trial.params),
        _state(trial),
        tuple(seen.get("scores", ())),
        tuple(seen.get("seconds", ())),
        seen.get("failed", ""),
    )


def _state(trial: FrozenTrial) -> State:
    if "failed" in trial.user_attrs:
        return "diverged"
    if trial.state == TrialState.FAIL:
        return "lost"
    return "finished" if len(trial.user_attrs.get("scores", ())) == trial.user_attrs["seeds"] else "stopped"


def _without_password(url: str) -> str:
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


# Drawing -------------------------------------------------------------------------------------------------------------


def sampler(what: Search, place: int, jobs: int) -> optuna.samplers.BaseSampler:
    """What draws the trial at a place of the search."""
    seed = derive(what.seed, f"trial {place}") % 2**32
    return optuna.samplers.TPESampler(seed=seed, constant_liar=jobs > 1)


def enqueue(study: optuna.Study, what: Search, place: int, owner: str) -> None:
    """Before a trial is asked for: what is to be tried first, and whose it is, so that none ever runs without owner."""
    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(what.first[place]) if place < len(what.first) else {}, user_attrs={"owner": owner})


def draw(trial: optuna.Trial, what: Search, owner: str) -> Candidate:
    """What a new trial is of."""
    trial.set_user_attr("owner", owner)
    trial.set_user_attr("seeds", len(what.seeds))
    candidate = what.space.draw(_Suggest(trial))
    trial.set_user_attr("recipe", candidate.recipe)
    trial.set_user_attr("learning_rate", candidate.learning_rate)
    return candidate


class _Suggest:
    """An Optuna trial as a space asks it."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def number(self, name: str, among: Range) -> float:
        if among.whole:
            return self._trial.suggest_int(name, int(among.low), int(among.high), log=among.log)
        return self._trial.suggest_float(name, among.low, among.high, log=among.log)

    def one_of(self, name: str, options: Sequence[str]) -> str:
        return self._trial.suggest_categorical(name, list(options))


# Importance -----------------------------------------------------------------------------------------------------------


def importance(what: Search, trials: Sequence[Trial]) -> dict[str, float]:
    """How much each open place of the space decides whether a trial is among the best, most important first.

    Shares that sum to 1, by PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255), from the trials that ran to their end;
    empty where those are too few.
    """
    finished = [trial for trial in trials if trial.state == "finished"]
    if len(finished) < ENOUGH:
        return {}
    with quietly():
        study = optuna.create_study(direction="maximize")
        for trial in finished:
            shadow = _Shadow(trial)
            what.space.draw(shadow)
            study.add_trial(
                optuna.create_trial(value=trial.score, params=dict(trial.point), distributions=shadow.distributions)
            )
        found = optuna.importance.get_param_importances(study)
    return {name: float(share) for name, share in found.items()}


class _Shadow:
    """Draws what a trial has drawn, and remembers among what."""

    def __init__(self, trial: Trial) -> None:
        self._point = trial.point
        self.distributions: dict[str, optuna.distributions.BaseDistribution] = {}

    def number(self, name: str, among: Range) -> float:
        self.distributions[name] = (
            IntDistribution(int(among.low), int(among.high), log=among.log)
            if among.whole
            else FloatDistribution(among.low, among.high, log=among.log)
        )
        return float(self._point[name])

    def one_of(self, name: str, options: Sequence[str]) -> str:
        self.distributions[name] = optuna.distributions.CategoricalDistribution(list(options))
        return str(self._point[name])


@contextmanager
def quietly() -> Iterator[None]:
    """Optuna tells of every trial on standard error, and warns of what it calls experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "The reported value is ignored")  # Ray begins a lost trial anew
            warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")
            yield
    finally:
        optuna.logging.set_verbosity(before)
