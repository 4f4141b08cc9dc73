"""`tikhon auto`: it says what it found, tries what has evidence against that, and goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import refused, run

from tikhon.tuning.space import read_space

TINY = ["--data", "digits", "--train-size", "120", "--label-noise", "0.4", "--epochs", "2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict]:
    out = tmp_path_factory.mktemp("auto") / "out"
    command = [*TINY, "--trials", "2", "--seeds", "1", "--jobs", "1", "--out", str(out)]
    result = run("auto", *command, "--json")
    assert result.exit_code == 0, result.stderr
    return command, json.loads(result.stdout)


def test_it_tries_what_has_evidence_against_what_it_found(finished: tuple[list[str], dict]) -> None:
    command, shown = finished
    problems = {one["problem"] for one in shown["findings"]}
    assert "noisy-labels" in problems
    assert {one["problem"] for one in shown["candidates"]} <= problems
    assert all(one["evidence"] for one in shown["candidates"])
    space = read_space(shown["search"]["space"], 0.1)
    assert set(space.methods) <= {one["name"] for one in shown["candidates"]}
    first = shown["trials"][0]["recipe"]  # each alone is tried first
    assert first.startswith(shown["candidates"][0]["name"])
    assert "+" not in first
    assert len(shown["trials"]) == len(shown["plain_trials"]) == 2
    assert json.loads((Path(command[-1]) / "results.json").read_text()) == shown


def test_the_same_command_shows_the_same_from_what_is_stored(
    finished: tuple[list[str], dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, shown = finished

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a stored run was repeated")

    monkeypatch.setattr("tikhon.studies.workers._Processes", refuse)
    said = run("auto", *command).stdout
    assert "120 samples for training (images), 10 classes." in said
    assert "noisy-labels: about" in said
    assert shown["candidates"][0]["part"] in said
    assert shown["code"] in said


def test_wrong_input_is_refused_before_anything_is_written() -> None:
    for arguments, words in [
        (["--trials", "0"], "--trials"),
        (["--learning-rate", "fast"], "0.01..0.3"),
        (["--engine", "optima"], "unknown engine 'optima'"),
        (["--model", "cn"], "Did you mean 'cnn'"),
        (["--optimizer", "adan"], "Did you mean 'adam'"),
    ]:
        assert words in refused("auto", *TINY, *arguments)
    assert list(Path().iterdir()) == []
