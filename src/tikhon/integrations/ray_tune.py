"""Ray Tune as the engine of a search: trials are actors of a Ray cluster, and its median rule stops them.

    trials = search(what, Budget(trials=50), show, storage="sqlite:///trials.db", owner="me", address="auto", jobs=64)

Ray Tune draws through Optuna, whose database here keeps all trials: so a search that was killed goes on, and begins
anew only what was in flight.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import MedianStoppingRule
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tikhon.core.errors import TikhonError
from tikhon.integrations.optuna import (
    draw,
    draw_again,
    drawn_in,
    enqueue,
    give_up,
    open_study,
    quietly,
    sampler,
    summed_up,
    trials_of,
)
from tikhon.integrations.ray import connected, refuse_other_versions, versions
from tikhon.studies.cells import environment
from tikhon.tuning.search import STARTUP, Budget, Search, Setting, Trial, Update, run
from tikhon.tuning.space import Candidate

WORST = -1e9
"""The score that Ray hears of a run that diverged: it takes numbers alone."""


def search(
    what: Search,
    budget: Budget,
    on_update: Callable[[Update], None],
    *,
    storage: str,
    owner: str,
    address: str | None,
    jobs: int,
) -> list[Trial]:
    """Run a search on Ray Tune, as `Engine` says.

    storage, owner: as of the engine Optuna. address: as of `connected`. jobs: trials at a time, of one CPU each.
    """
    with quietly(), _quiet_tune(), TemporaryDirectory() as scratch, connected(address, cpus=jobs):
        study, database = open_study(storage, what)
        budget.spent += give_up(study, owner) / jobs
        searcher = _Searcher(what, budget, on_update, study, database, owner, jobs)
        found = tune.Tuner(
            tune.with_resources(_trainable(what.setting, what.seeds), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=MedianStoppingRule(
                    time_attr="training_iteration", grace_period=1, min_samples_required=STARTUP
                ),
                metric="score",
                mode="max",
                num_samples=-1,  # until the searcher says that it is enough
                max_concurrent_trials=jobs,
                reuse_actors=True,  # importing torch takes seconds
            ),
            run_config=tune.RunConfig(
                storage_path=scratch, verbose=0, failure_config=tune.FailureConfig(max_failures=1)
            ),
        ).fit()
        trials = trials_of(study)
        if found.errors and not any(trial.state == "finished" for trial in trials):
            raise TikhonError(f"Every trial failed: {str(found.errors[0]).strip().splitlines()[-1]}")
        return trials


class _Searcher(OptunaSearch):
    """Optuna's sampler in Ray Tune, which draws within the budget and writes down what Tune hears."""

    def __init__(
        self,
        what: Search,
        budget: Budget,
        on_update: Callable[[Update], None],
        study: optuna.Study,
        database: optuna.storages.BaseStorage,
        owner: str,
        jobs: int,
    ) -> None:
        self._what, self._budget, self._on_update, self._study = what, budget, on_update, study
        self._owner, self._jobs = owner, jobs
        self._trials: dict[str, Any] = {}
        super().__init__(
            self._drawn,
            metric="score",
            mode="max",
            sampler=sampler(what, len(drawn_in(study)), jobs),
            study_name=study.study_name,
            storage=database,
        )

    def suggest(self, trial_id: str) -> Any:
        again = draw_again(self._study)
        drawn = drawn_in(self._study)
        runs = [second for trial in drawn for second in trial.user_attrs.get("seconds", ())]
        if not self._budget.allows(len(drawn) - again, runs, len(self._what.seeds), self._jobs):
            return Searcher.FINISHED
        enqueue(self._study, self._what, len(drawn) - again, self._owner)
        config = super().suggest(trial_id)
        self._trials[trial_id] = self._latest
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._keep(trial_id, result)
        super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result and not error:
            self._keep(trial_id, result)
        super().on_trial_complete(trial_id, None if error else result, error)
        trials, best = summed_up(self._study)
        self._on_update(Update(trials, best, self._budget.fraction(trials)))

    def save(self, checkpoint_path: str) -> None:
        """The database has it all."""
        Path(checkpoint_path).touch()

    def _drawn(self, trial: Any) -> dict[str, Any]:
        self._latest = trial
        candidate = draw(trial, self._what, self._owner)
        return {"recipe": candidate.recipe, "learning_rate": candidate.learning_rate}

    def _keep(self, trial_id: str, result: dict[str, Any]) -> None:
        for name in ("scores", "seconds", "failed"):
            if result.get(name):
                self._trials[trial_id].set_user_attr(name, result[name])


def _trainable(setting: Setting, seeds: Sequence[int]) -> Callable[[dict[str, Any]], None]:
    folder, path, expected = Path.cwd(), list(sys.path), versions()

    def trial(config: dict[str, Any]) -> None:
        """In a worker of Ray: the seeds in turn, each reported as it ends."""
        refuse_other_versions(expected)
        os.environ.update(environment(1))
        os.chdir(folder)
        sys.path.extend(one for one in path if one not in sys.path)
        candidate = Candidate(config["recipe"], config["learning_rate"])
        scores: list[float] = []
        seconds: list[float] = []
        for seed in seeds:
            result = run(setting.cell(candidate, seed), lambda _: None)
            seconds.append(result["seconds"])
            if "failed" in result:
                tune.report({"score": WORST, "scores": scores, "seconds": seconds, "failed": result["failed"]})
                return
            scores.append(result["score"])
            tune.report({"score": fmean(scores), "scores": scores, "seconds": seconds})

    return trial


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """Tune prints boxes whatever it is told, and unless it is told not to, answers Ctrl-C and writes logs of trials."""
    wanted = {"TUNE_DISABLE_SIGINT_HANDLER": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    level = logging.getLogger("ray.tune").level
    os.environ.update(wanted)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logging.getLogger("ray.tune").setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
