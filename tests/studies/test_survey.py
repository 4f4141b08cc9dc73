"""Surveys: what an arm may choose among, rows that outlive an interruption, and who stands where."""

from __future__ import annotations

import json
import math

import pytest

from tikhon.core.catalogue import find
from tikhon.core.errors import TikhonError
from tikhon.studies import survey as surveys
from tikhon.studies.arms import parse_arm
from tikhon.studies.survey import (
    PLAIN,
    SURVEYS,
    Course,
    Rows,
    Survey,
    arms,
    candidates,
    find_survey,
    run_row,
    run_survey,
    standings,
)

TINY = Course("wine-3", "wine, 3 epochs", {"source": "wine"}, epochs=3)
SURVEY = Survey("overfitting", (TINY,), seeds=2)


def values(arm):
    return [parse_arm(one["recipe"]).calls[0][1] for one in candidates(arm, TINY)]


def test_an_arm_chooses_among_four_values_of_its_first_strength():
    assert values("l2") == [{"strength": pytest.approx(factor * 1e-4, rel=1e-4)} for factor in (1 / 3, 1, 3, 10)]
    assert len({one["learning_rate"] for one in candidates("l2", TINY)}) == 1


def test_a_strength_that_is_bounded_goes_the_ways_that_are_left():
    assert [one["p"] for one in values("multi_sample_dropout")] == pytest.approx([1 / 6, 0.5, 0.75, 0.875], rel=1e-4)


@pytest.mark.parametrize("arm", [PLAIN, "ghost_bn"])
def test_without_a_strength_the_learning_rate_is_chosen(arm):
    assert [one["learning_rate"] for one in candidates(arm, TINY)] == [0.025, 0.05, 0.1, 0.2]
    assert len({one["recipe"] for one in candidates(arm, TINY)}) == 1


@pytest.mark.parametrize("survey", SURVEYS.values(), ids=SURVEYS)
def test_every_arm_has_candidates_that_can_be_made_and_stops_early_where_an_epoch_can_be_best(survey):
    found = arms(survey)
    assert found[0] == PLAIN
    assert len(found) == len(set(found)) > 1
    for arm in found:
        for course in survey.courses:
            tried = candidates(arm, course)
            assert len(tried) == 4
            assert all(parse_arm(one["recipe"], course.given).early_stopping != course.in_turn for one in tried)
    for arm in found[1:]:
        assert survey.problem in find(arm).card.problems


def test_methods_that_keep_tasks_are_surveyed_where_tasks_come_in_turn_and_nowhere_else():
    keepers = set(arms(SURVEYS["forgetting"])[1:])
    assert {"ewc", "si", "lwf", "replay", "l2_anchor"} <= keepers
    for problem, survey in SURVEYS.items():
        assert problem == "forgetting" or not keepers & set(arms(survey))


def test_a_course_in_turn_trains_pair_after_pair(monkeypatch):
    monkeypatch.setattr(surveys.split_digits, "EPOCHS", 1)
    course = SURVEYS["forgetting"].courses[0]
    row = run_row({"course": surveys.asdict(course), "arm": "l2_anchor", "seeds": 1}, lambda _: None)
    assert set(row["measures"]) == {"metric", "learned", "forgetting"}
    assert row["time"] > 0.0
    assert 0.1 <= row["measures"]["metric"][0] <= 0.4  # the last pair, and little of the others


def test_the_search_sees_no_seed_that_is_reported():
    assert not set(surveys.SEARCH_SEEDS) & set(range(max(one.seeds for one in SURVEYS.values())))


def row_of(arm, runs, monkeypatch):
    """A row where `runs(recipe, learning_rate, seed)` gives the measures."""
    monkeypatch.setattr(
        Course, "run", property(lambda self: lambda one, seed, report: runs(one["recipe"], one["learning_rate"], seed))
    )
    seen: list[float] = []
    row = run_row({"course": surveys.asdict(TINY), "arm": arm, "seeds": 3}, seen.append)
    return row, seen


def measures(validation, seed=0, seconds=1.0):
    return {
        "validation": validation,
        "metric": 0.1 * seed,
        "train": 1.0,
        "calibration_error": 0.0,
        "seconds": seconds,
    }


def test_the_candidate_that_validates_best_is_trained_on_every_seed(monkeypatch):
    def runs(recipe, rate, seed):
        plain = recipe == PLAIN
        return measures(1.0 if rate == 0.05 else 0.5, seed, seconds=2.0 if plain else 3.0)

    row, seen = row_of(PLAIN, runs, monkeypatch)
    assert row["chosen"] == {"recipe": "none+early_stopping", "learning_rate": 0.05}
    assert row["measures"]["metric"] == pytest.approx([0.0, 0.1, 0.2])
    assert row["time"] == 1.5
    assert seen[-1] == pytest.approx(1.0)
    assert seen == sorted(seen)


def test_a_candidate_that_diverges_is_out(monkeypatch):
    row, _ = row_of(PLAIN, lambda recipe, rate, seed: measures(math.nan if rate > 0.05 else rate, seed), monkeypatch)
    assert row["chosen"]["learning_rate"] == 0.05


def test_what_cannot_run_says_why(monkeypatch):
    def refuses(recipe, rate, seed):
        raise TikhonError("Needs images.")

    assert row_of("cutmix", refuses, monkeypatch)[0] == {"refused": "Needs images."}
    row, _ = row_of(PLAIN, lambda recipe, rate, seed: measures(math.nan), monkeypatch)
    assert row == {"refused": "it diverged with every candidate"}


def test_a_candidate_that_diverges_on_a_seed_leaves_its_place_to_the_next_best(monkeypatch):
    def runs(recipe, rate, seed):
        diverges = rate == 0.2 and seed == 1
        return measures(math.nan if diverges else rate, seed)

    assert row_of(PLAIN, runs, monkeypatch)[0]["chosen"]["learning_rate"] == 0.1


def test_rows_are_run_once_and_again_when_the_method_changes(tmp_path, monkeypatch):
    rows = Rows(SURVEY, tmp_path)
    assert rows.due([PLAIN, "l2"]) == [(TINY, PLAIN), (TINY, "l2")]
    run_survey(SURVEY, rows, [PLAIN], jobs=1)
    assert rows.due([PLAIN, "l2"]) == [(TINY, "l2")]  # an interruption costs what was not finished
    run_survey(SURVEY, rows, [PLAIN, "l2"], jobs=1)

    again = Rows(SURVEY, tmp_path)
    assert again.due([PLAIN, "l2"]) == []
    assert again.stale() == []
    stored = json.loads((tmp_path / "surveys" / "overfitting" / "wine-3.json").read_text())
    assert len(stored["l2"]["measures"]["metric"]) == 2
    found = {one.arm: one for one in standings(SURVEY, again.of(TINY))}
    assert found[PLAIN].difference == 0.0
    assert found["l2"].low <= found["l2"].difference <= found["l2"].high
    assert found["l2"].time > 0.0

    monkeypatch.setattr(surveys, "source_hash", lambda path: "another source")
    assert again.stale() == [(TINY, "l2")]
    assert again.due([PLAIN, "l2"]) == [(TINY, "l2")]


def test_the_best_stand_first_and_less_is_better_where_it_is():
    rows = {
        arm: {"measures": {"metric": found, "calibration_error": found}, "time": 1.0, "chosen": {"recipe": arm}}
        for arm, found in {PLAIN: [0.5, 0.6], "a": [0.8, 0.7], "b": [0.2, 0.3]}.items()
    }
    assert [one.arm for one in standings(SURVEY, rows)] == ["a", PLAIN, "b"]
    lower = Survey("calibration", (TINY,), "calibration_error", lower=True)
    assert [one.arm for one in standings(lower, rows)] == ["b", PLAIN, "a"]
    assert [round(one.difference, 3) for one in standings(lower, rows)] == [-0.3, 0.0, 0.2]
    del rows[PLAIN]
    assert standings(SURVEY, rows) == []


def test_a_foreign_file_and_an_unknown_problem_are_refused(tmp_path):
    file = tmp_path / "surveys" / "overfitting" / "wine-3.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(TikhonError, match="no survey that tikhon wrote"):
        Rows(SURVEY, tmp_path)
    with pytest.raises(TikhonError, match="overfitting"):
        find_survey("overfiting")
