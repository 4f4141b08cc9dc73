"""Optuna, the real thing, with runs that are made up: what is tried, stopped, stored, and gone on with."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace

import optuna
import pytest

from tikhon.core.errors import TikhonError
from tikhon.integrations import optuna as engine
from tikhon.studies.arms import parse_arm
from tikhon.studies.cells import Event
from tikhon.tuning.search import STARTUP, Budget, Search, Setting, best
from tikhon.tuning.space import read_rate, read_space

SETTING = Setting({"source": "wine"}, "mlp", 2, 32, "sgd", {})
SPACE = read_space("l2(strength=1e-5..1e-1) + mixup(alpha=0.1..1.0)?", read_rate("0.02..0.2"))
WHAT = Search("recipes", SPACE, SETTING)
FINITE = Search("recipes", read_space("(l2 | mixup) + elr?", 0.1), SETTING)
FINITE = replace(FINITE, first=tuple(FINITE.space.all_points()))


class Killed(BaseException):
    """The process is gone."""


def made_up(cell):
    """Best at strength 1e-3 and without MixUp; seeds differ, alike for all."""
    calls = {listing.name: given for listing, given in parse_arm(cell["arm"]).calls}
    strength = calls["l2"]["strength"] if "strength" in calls.get("l2", {}) else 1e-3
    return 0.9 - 0.1 * abs(math.log10(strength) + 3.0) - 0.05 * ("mixup" in calls) + 0.01 * (cell["seed"] % 7)


def cells_in_turn(outcome=made_up, kill_after=None, seen=None):
    """An engine of cells that trains nothing."""

    def run_cells(function, cells, *, jobs, on_result, on_event, threads=1):
        waiting = iter(cells)
        done, busy = 0, []
        while True:
            while len(busy) < jobs and (cell := next(waiting, None)) is not None:
                busy.append(cell)
            if not busy:
                return
            cell = busy.pop(0)
            if done == kill_after:
                raise Killed
            done += 1
            if seen is not None:
                seen.append((cell["arm"], cell["seed"]))
            found = outcome(cell)
            result = {"failed": found} if isinstance(found, str) else {"score": found}
            on_result(cell, {**result, "seconds": 0.5})
            on_event(Event("finished", cell, 1.0))

    return run_cells


def run(what, url, trials, *, owner="me", jobs=1, updates=None, **cells):
    return engine.search(
        what,
        Budget(trials=trials),
        (lambda update: None) if updates is None else updates.append,
        storage=url,
        owner=owner,
        jobs=jobs,
        engine=cells_in_turn(**cells),
    )


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'trials.db'}"


def told(trials):
    return [(one.number, one.candidate, one.point, one.state, one.scores) for one in trials]


def test_the_same_seed_draws_the_same_trials_and_finds_what_is_best(tmp_path) -> None:
    first, second, other = (f"sqlite:///{tmp_path / name}.db" for name in ("first", "second", "other"))
    trials = run(WHAT, first, 25)
    assert told(trials[:13]) == told(run(WHAT, second, 13))  # three of them drawn by what was seen
    assert told(trials[:2]) != told(run(replace(WHAT, seed=1), other, 2))
    assert len({one.candidate for one in trials}) == 25
    assert [one.number for one in trials] == list(range(25))
    found = best(trials)
    assert "mixup" not in found.candidate.recipe
    assert found.score > 0.9
    late, early = trials[15:], trials[:10]  # it has learned where to look
    assert sum("mixup" in one.candidate.recipe for one in late) < sum("mixup" in one.candidate.recipe for one in early)
    assert all(one.scores == tuple(made_up(SETTING.cell(one.candidate, seed)) for seed in WHAT.seeds[: len(one.scores)])
               for one in trials)  # fmt: skip


def test_trials_that_are_worse_than_most_are_stopped_after_their_first_seeds(url) -> None:
    trials = run(WHAT, url, 25)
    assert all(one.state == "finished" for one in trials[:STARTUP])
    stopped = [one for one in trials if one.state == "stopped"]
    assert stopped
    assert all(len(one.scores) < len(WHAT.seeds) for one in stopped)
    for one in stopped:
        place = len(one.scores) - 1
        others = sorted(math.fsum(t.scores[: place + 1]) for t in trials[: one.number] if t.state == "finished")
        assert math.fsum(one.scores) <= others[len(others) // 2]


def test_killed_at_any_run_it_ends_with_the_trials_of_an_undisturbed_search(tmp_path) -> None:
    expected = told(run(WHAT, f"sqlite:///{tmp_path / 'calm.db'}", 10))
    for kill_after in (0, 2, 7, 18):
        url = f"sqlite:///{tmp_path / f'wild{kill_after}.db'}"
        before, after = [], []
        with pytest.raises(Killed):
            run(WHAT, url, 10, kill_after=kill_after, seen=before)
        assert len(before) == kill_after
        trials = run(WHAT, url, 10, seen=after)
        assert told(trials) == expected
        assert not set(before) & set(after), "a run that had finished was repeated"
        states = Counter(one.state for one in optuna.load_study(study_name=None, storage=url).get_trials())
        assert states[optuna.trial.TrialState.RUNNING] == 0
        assert states[optuna.trial.TrialState.FAIL] == 1  # the one in flight
        assert run(WHAT, url, 10, seen=(again := [])) == trials
        assert again == []


def test_what_kills_its_process_twice_is_given_up(url) -> None:
    for _ in range(2):
        with pytest.raises(Killed):
            run(WHAT, url, 3, kill_after=0)
    trials = run(WHAT, url, 3)
    assert [one.state for one in trials] == ["lost", "finished", "finished"]
    assert len({one.candidate for one in trials}) == 3


def test_more_trials_go_on_from_those_that_are_stored(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    few = run(WHAT, url, 5)
    more = run(WHAT, url, 9)
    assert told(more)[:5] == told(few)
    assert told(more) == told(run(WHAT, f"sqlite:///{tmp_path / 'at_once.db'}", 9))
    seen = []
    assert len(run(replace(WHAT, name="plain training"), url, 2, seen=seen)) == 2  # another search in one database
    assert len(seen) == 2 * len(WHAT.seeds)


def test_several_at_a_time_end_with_as_many(url) -> None:
    updates = []
    trials = run(WHAT, url, 14, jobs=3, updates=updates)
    assert len(trials) == 14
    assert len({one.candidate for one in trials}) == 14
    assert updates[-1].trials == 14
    assert updates[-1].fraction == 1.0
    assert updates[-1].best == best(trials).score
    assert [one.best or 0 for one in updates] == sorted(one.best or 0 for one in updates)


def test_two_commands_on_one_database_share_the_search(url) -> None:
    """The second begins while a trial of the first is under way, which it leaves alone."""
    second = []

    def outcome(cell):
        if not second:
            second.append(None)
            second[0] = run(WHAT, url, 4, owner="other")
        return made_up(cell)

    first = run(WHAT, url, 6, outcome=outcome)
    assert len(first) == 6
    assert len(second[0]) == 3  # of four, one was still the first command's
    assert {one.candidate for one in second[0]} < {one.candidate for one in first}
    owners = Counter(one.user_attrs["owner"] for one in optuna.load_study(study_name=None, storage=url).get_trials())
    assert owners == {"me": 3, "other": 3}


def test_trials_of_a_command_without_signs_of_life_are_run_by_another(url, monkeypatch) -> None:
    monkeypatch.setattr(engine, "GRACE", 1)
    with pytest.raises(Killed):
        run(WHAT, url, 3, owner="gone", kill_after=1)
    study = optuna.load_study(study_name=None, storage=url)
    (alive,) = [one for one in study.get_trials() if one.state == optuna.trial.TrialState.RUNNING]
    storage = optuna.storages.RDBStorage(url)
    storage.record_heartbeat(alive._trial_id)
    assert len(run(WHAT, url, 1)) == 0  # it may be alive
    time.sleep(2.5)
    trials = run(WHAT, url, 3)
    assert [one.state for one in trials] == ["finished"] * 3
    assert trials[0].candidate.recipe == alive.user_attrs["recipe"]


def test_a_run_that_diverged_ends_its_trial_and_no_other(url) -> None:
    trials = run(WHAT, url, 12, outcome=lambda cell: "loss is NaN" if "mixup" in cell["arm"] else made_up(cell))
    for one in trials:
        assert (one.state == "diverged") == ("mixup" in one.candidate.recipe)
        assert one.reason == ("loss is NaN" if one.state == "diverged" else "")
    assert 0 < sum(one.state == "diverged" for one in trials) < 12


def test_where_no_number_is_open_every_point_is_tried_once(url) -> None:
    trials = run(FINITE, url, 4)
    assert [one.candidate.recipe for one in trials] == ["l2+elr", "l2", "mixup+elr", "mixup"]
    assert best(trials).candidate.recipe == "l2+elr"


def test_importance_says_what_decides(url) -> None:
    trials = run(WHAT, url, 25)
    found = engine.importance(WHAT, trials)
    assert next(iter(found)) == "l2.strength"
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["l2.strength"] > 3 * found["learning_rate"]
    assert engine.importance(WHAT, trials[:3]) == {}


def test_a_database_that_cannot_be_used_is_named_without_its_password() -> None:
    for url, words in [
        ("sqlite:////nowhere/at/all.db", "unable to open"),
        ("nonsense", "ArgumentError"),
        ("oracle://me:secret@host/x", "driver"),
    ]:
        with pytest.raises(TikhonError, match=words) as refusal:
            run(WHAT, url, 1)
        assert "secret" not in str(refusal.value)


def test_optuna_is_as_talkative_as_before(url) -> None:
    before = optuna.logging.get_verbosity()
    run(WHAT, url, 1)
    assert optuna.logging.get_verbosity() == before
