"""Searches, without an engine: what a trial is, what is refused, and when there is time for another."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tikhon.core.errors import TikhonError
from tikhon.data import load_task
from tikhon.studies.experiment import run_cell
from tikhon.tuning import search as searches
from tikhon.tuning.search import Budget, Search, Setting, Trial, best, plain_data, run
from tikhon.tuning.space import Candidate, read_space

TASK = {"source": "wine", "train_size": 40}
SETTING = Setting(TASK, "mlp", 2, 32, "sgd", {})


def trial(number: int, state: str, *scores: float, reason: str = "") -> Trial:
    return Trial(number, Candidate(f"l2(strength={number})", 0.1), {}, state, scores, (1.0,) * len(scores), reason)


def test_the_score_is_the_validation_metric_of_the_best_epoch_and_not_the_test() -> None:
    cell = SETTING.cell(Candidate("mixup", 0.05), 1000)
    assert cell["arm"] == "mixup+early_stopping"
    expected = run_cell(cell, lambda _: None)
    found = run(cell, lambda _: None)
    assert found["score"] == expected["validation_metric"] == max(expected["curves"]["validation_metric"])
    assert found["score"] != expected["metric"]
    assert found["seconds"] > 0


def test_a_trial_that_diverges_says_why() -> None:
    found = run(SETTING.cell(Candidate("l2(strength=1e20)", 0.1), 1000), lambda _: None)
    assert "not finite" in found["failed"]
    assert "score" not in found


def test_methods_that_cannot_be_in_one_recipe_are_refused_before_anything_runs() -> None:
    task = load_task(**TASK, seed=0)
    Search("recipes", read_space("(sam | asam)", 0.1), SETTING).check(task)
    with pytest.raises(TikhonError, match=r"holds sam\+asam, which cannot be trained: .*\(elr \| gce\)"):
        Search("recipes", read_space("sam? + asam?", 0.1), SETTING).check(task)
    with pytest.raises(TikhonError, match=r"holds l2\+cutmix, which cannot be trained"):
        Search("recipes", read_space("l2 + cutmix?", 0.1), SETTING).check(task)


def test_trials_of_another_setting_are_not_trials_of_a_search(monkeypatch) -> None:
    one = Search("recipes", read_space("elr(strength=1..10)", 0.1), SETTING)
    others = [
        dataclasses.replace(one, seed=1),
        dataclasses.replace(one, name="plain training"),
        dataclasses.replace(one, space=read_space("elr(strength=1..9)", 0.1)),
        dataclasses.replace(one, space=read_space("elr(strength=1..10)", 0.2)),
        dataclasses.replace(one, setting=dataclasses.replace(SETTING, epochs=3)),
        dataclasses.replace(one, setting=dataclasses.replace(SETTING, sources={"data": "changed"})),
    ]
    found = {search.identity for search in [one, *others]}
    assert len(found) == 7
    assert dataclasses.replace(one).identity in found
    monkeypatch.setattr(searches, "source_hash", lambda path: "another source")
    assert one.identity not in found


def test_the_best_is_finished_and_the_first_of_equals() -> None:
    trials = [
        trial(0, "finished", 0.5, 0.7),
        trial(1, "stopped", 0.9),
        trial(2, "finished", 0.7, 0.5),
        trial(3, "diverged", reason="loss is NaN."),
    ]
    assert best(trials).number == 0
    with pytest.raises(TikhonError, match=r"--minutes.*loss is NaN\. .*--learning-rate"):
        best(trials[1::2])
    assert plain_data(trials[0]) | {"score": 0.6} == plain_data(trials[0])
    assert plain_data(trials[3])["score"] is None
    assert plain_data(trials[3])["recipe"] == "l2(strength=3)"


def test_a_budget_of_trials() -> None:
    budget = Budget(trials=2)
    assert [budget.allows(count, [1.0] * count, 3, 1) for count in range(3)] == [True, True, False]
    assert [budget.fraction(count) for count in range(4)] == [0.0, 0.5, 1.0, 1.0]


def test_a_budget_of_time_leaves_room_for_the_runs_that_follow() -> None:
    """100 s, 60 of them gone; a trial takes 3 runs of 5 s, and 4 runs are to follow."""
    budget = Budget(seconds=100.0, after=4, spent=60.0)
    assert budget.allows(7, [5.0], 3, 1)
    assert not budget.allows(7, [6.0], 3, 1)
    assert budget.allows(7, [7.0], 3, 2)  # two at a time: the runs that follow take half of the time
    assert budget.allows(0, [], 3, 1)
    assert Budget(seconds=0.001, spent=9.0).allows(0, [], 3, 1)  # one trial is always run
    assert math.isclose(budget.fraction(1), 0.6, abs_tol=0.05)
