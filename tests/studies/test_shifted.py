"""Shifted digits: what arms learn from and are tested on, what methods are given, and what adapts at the test."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tikhon.core.catalogue import find
from tikhon.core.errors import TikhonError
from tikhon.data import load_task
from tikhon.data.corruptions import rotate
from tikhon.data.shift import parse_shift
from tikhon.studies import survey as surveys
from tikhon.studies.arms import parse_arm
from tikhon.studies.shifted import STAND_INS, in_domains, in_words, shifted
from tikhon.studies.survey import PLAIN, SURVEYS, Course, arms, candidates, run_row

SHIFTED = {"source": "digits", "shift": "rotation:30"}
NETWORK = "tikhon.studies.shifted:network"
TINY = Course("digits-rotation", "", SHIFTED, epochs=2, model=NETWORK, optimizer="adam", domains=True)


def trained(recipe, **settings):
    return TINY.run({"recipe": recipe, "learning_rate": 1e-3, **settings}, 100, lambda _: None)


@pytest.fixture(scope="module")
def plain():
    return trained(PLAIN)


def test_domains_are_changed_by_a_part_of_what_the_test_is_and_nothing_labelled_by_all_of_it():
    task = load_task(**SHIFTED, seed=100)
    mixed, given = in_domains(task, parse_shift("rotation:30"), 100)
    assert given.domains.bincount().tolist() == [345, 345, 345]
    for number, degrees in enumerate((0.0, 10.0, 20.0)):
        rows = given.domains == number
        torch.testing.assert_close(mixed.train.inputs[rows], rotate(task.train.inputs[rows], degrees))
    upright = (mixed.validation.inputs == task.validation.inputs).flatten(1).all(1)
    assert abs(int(upright.sum()) - len(upright) / 3) <= 1
    assert torch.equal(given.unlabelled, rotate(task.train.inputs, 30.0))
    assert torch.equal(mixed.test.inputs, task.test.inputs)
    assert torch.equal(mixed.train.target, task.train.target)


def test_a_method_is_given_what_it_asks_for():
    assert set(STAND_INS(find("irm"))) == {"domains"}
    assert set(STAND_INS(find("coral"))) == {"unlabelled"}  # it takes either, and one of them
    assert STAND_INS(find("policy_noise_mask")) == {}
    assert in_words(find("dann")) == "unlabelled target inputs"
    assert in_words(find("eata")).startswith("test inputs")
    with pytest.raises(TikhonError, match="domains"):
        parse_arm("irm")


def test_the_survey_has_all_that_such_a_course_can_train():
    needing = {"coral", "dann", "eata", "fishr", "group_dro", "hessian_align", "irm", "mmd", "vrex"}
    assert set(arms(SURVEYS["shift"])) == {PLAIN, "policy_noise_mask", *needing}
    for problem, survey in SURVEYS.items():
        assert problem == "shift" or not needing & set(arms(survey))


@pytest.mark.parametrize(
    "recipe", ["vrex(beta=30.0)", "group_dro(eta=0.1)", "mmd(strength=10.0)", "coral(strength=1000.0)"]
)
def test_methods_train_on_what_they_are_given(recipe, plain):
    found = trained(recipe)
    assert set(found) == set(plain)
    assert all(math.isfinite(value) for value in found.values())
    assert found["metric"] > 0.4
    assert found["calibration_error"] != plain["calibration_error"]


def test_what_adapts_at_the_test_is_trained_as_plain_and_moved_by_the_stream(plain):
    still, moved = (trained("eata(similarity=0.4, strength=0.0)", adaptation_rate=rate) for rate in (1e-12, 0.3))
    assert still["train"] == moved["train"] == plain["train"]
    assert still["metric"] == pytest.approx(plain["metric"])
    assert abs(moved["metric"] - plain["metric"]) > 0.002


def test_a_row_of_a_method_that_needs_domains(monkeypatch):
    monkeypatch.setattr(
        surveys,
        "candidates",
        lambda arm, course: [{"recipe": "irm(strength=1.0)+early_stopping", "learning_rate": 1e-3}],
    )
    row = run_row({"course": surveys.asdict(TINY), "arm": "irm", "seeds": 2}, lambda _: None)
    assert {name: len(values) for name, values in row["measures"].items()} == dict.fromkeys(TINY.measures, 2)
    assert row["time"] > 0.0


def test_penalties_begin_late_and_the_epoch_kept_is_one_that_they_saw(monkeypatch):
    assert candidates("irm", TINY)[1]["recipe"] == "irm(strength=stepwise({0.0: 1, 0.4: 100}))+early_stopping"
    monkeypatch.setattr("tikhon.studies.shifted.START", 0.7)  # of four epochs, only the last
    course = replace(TINY, epochs=4)
    kept, last = (
        course.run({"recipe": recipe, "learning_rate": 0.3}, 100, lambda _: None)
        for recipe in ("none+early_stopping", PLAIN)
    )
    assert kept["train"] == last["train"]


def test_what_the_network_lacks_is_said_in_the_row():
    course = Course("digits-rotation", "", SHIFTED, epochs=1, optimizer="adam", domains=True)  # an MLP without norms
    row = run_row({"course": surveys.asdict(course), "arm": "eata", "seeds": 1}, lambda _: None)
    assert "norms" in row["refused"]


def test_a_training_that_diverges_loses_the_search():
    run = shifted(task=SHIFTED, model=NETWORK, epochs=1, optimizer="sgd")
    assert math.isnan(run({"recipe": "none", "learning_rate": 1e30}, 100, lambda _: None)["validation"])
