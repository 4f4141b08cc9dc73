"""tikhon survey: it shows what is stored, names what is stale, and refuses what it does not know."""

from __future__ import annotations

import json

import pytest
from commands import refused, run

from tikhon.report.survey import survey_tables
from tikhon.studies.survey import PLAIN, find_survey, identity


@pytest.fixture
def stored(tmp_path):
    """Made-up rows of two arms on one course, and of one that could not run."""
    survey = find_survey("overfitting")
    course = survey.courses[0]
    found = {PLAIN: [0.80, 0.82, 0.81], "l2": [0.90, 0.91, 0.95]}
    rows = {
        arm: {
            **identity(arm, course, survey.seeds),
            "chosen": {"recipe": arm, "learning_rate": 0.1},
            "measures": {"metric": values, "train": values, "calibration_error": values},
            "time": 1.25,
        }
        for arm, values in found.items()
    }
    rows["cutmix"] = {**identity("cutmix", course, survey.seeds), "refused": "CutMix needs images."}
    file = tmp_path / "surveys" / "overfitting" / f"{course.name}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(rows))
    return file


def test_stored_rows_are_shown(stored, tmp_path):
    result = run("survey", "overfitting", "--stored", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "digits-100" in result.output
    assert "+0.110 [" in result.output
    assert "1.25x" in result.output
    assert result.output.count("plain training has no row yet") == 3


def test_the_table_for_the_docs(stored, tmp_path):
    text = survey_tables(tmp_path)
    assert "| method | digits-100 | mnist-1000 |" in text
    assert "| L2 | +0.110 [" in text
    assert "| none | 0.810 |" in text
    assert "Not on every course: cutmix (CutMix needs images)." in text
    assert "noisy-labels" not in text


def test_check_names_what_is_stale(stored, tmp_path):
    result = run("survey", "overfitting", "--check", "--out", str(tmp_path))
    assert result.exit_code == 0
    assert "the stored rows are current" in result.output
    rows = json.loads(stored.read_text())
    rows["l2"]["source"] = "another"
    stored.write_text(json.dumps(rows))
    result = run("survey", "--check", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "overfitting, digits-100: the row of l2 is stale" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["overfiting"], "no survey of 'overfiting'"),
        (["overfitting", "--methods", "l3"], "'l3' is not in the survey of overfitting"),
        (["overfitting", "--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_wrong_input_is_refused(arguments, message, tmp_path):
    assert message in refused("survey", *arguments, "--out", str(tmp_path))
