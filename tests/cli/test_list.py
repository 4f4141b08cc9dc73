"""`tikhon list`."""

import json
from pathlib import Path

import pytest
from commands import refused, run

PACKAGE = Path(__file__).parents[2] / "src" / "tikhon"
METHODS = PACKAGE / "methods"
OTHERS = [path for folder in ("blocks", "solvers") for path in (PACKAGE / folder).rglob("*.py")]
CARDS = [
    path
    for folder in ("measures", "studies", "tuning")  # where there are files of no entry too
    for path in (PACKAGE / folder).rglob("*.py")
    if "\ncard = Card(" in path.read_text()
]
FILES = {path.stem for path in [*METHODS.glob("*/*.py"), *OTHERS, *CARDS]} - {"__init__"}


def test_the_table_names_every_method_uncut_in_80_columns() -> None:
    lines = run("list").stdout.splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")} >= FILES
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


@pytest.mark.usefixtures("evidence_folder")
def test_json_is_an_array_with_the_evidence_of_each() -> None:
    rows = json.loads(run("list", "--json").stdout)
    assert {row["key"] for row in rows} == FILES
    elr = next(row for row in rows if row["key"] == "elr")
    assert {key: elr[key] for key in ("name", "year", "arxiv", "family", "kind")} == {
        "name": "ELR",
        "year": 2020,
        "arxiv": "2007.00151",
        "family": "targets",
        "kind": "method",
    }
    assert "noisy-labels" in elr["problems"]
    assert elr["title"].startswith("Early-Learning")
    # Three seeds with differences 0.20, 0.21 and 0.19 are clear; equal gaps are not lower.
    assert elr["evidence"]["status"] == "partly"
    assert [finding["met"] for finding in elr["evidence"]["findings"]] == [True, False]
    assert next(row for row in rows if row["key"] == "mixup")["evidence"] == {"status": "none"}


def test_family_and_problem_choose() -> None:
    rows = json.loads(run("list", "--family", "targets", "--json").stdout)
    assert {row["key"] for row in rows} == {path.stem for path in METHODS.glob("targets/*.py")} - {"__init__"}
    rows = json.loads(run("list", "--problem", "noisy-labels", "--json").stdout)
    assert {"elr", "sam"} <= {row["key"] for row in rows}
    assert all("noisy-labels" in row["problems"] for row in rows)


def test_a_choice_that_leaves_nothing_says_so() -> None:
    result = run("list", "--family", "targets", "--problem", "privacy")
    assert (result.exit_code, result.stdout.strip()) == (0, "No method of targets addresses privacy yet.")
    assert json.loads(run("list", "--family", "targets", "--problem", "privacy", "--json").stdout) == []


def test_unknown_names_get_near_misses_and_the_list() -> None:
    said = refused("list", "--problem", "noisy-label")
    assert "Did you mean 'noisy-labels'?" in said
    assert "calibration the model is more confident than it is right" in said
    said = refused("list", "--family", "target")
    assert "Did you mean 'targets'?" in said
    assert "mixing" in said
