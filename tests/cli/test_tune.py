"""`tikhon tune`: what it finds is stored, shown and pasted; the same command goes on; what cannot be is refused."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import refused, run

from tikhon.report.code import python_code
from tikhon.tuning.search import Budget, Search, Trial
from tikhon.tuning.space import Candidate

TINY = ["--data", "wine", "--train-size", "40", "--epochs", "2"]
SPACE = "l2(strength=1e-4..1e-1) + mixup?"
KEYS = ["search", "best", "plain", "comparison", "importance", "code", "trials", "plain_trials"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict]:
    """A search that has run, and what it printed."""
    out = tmp_path_factory.mktemp("tune") / "out"
    command = [*TINY, "--space", SPACE, "--trials", "3", "--seeds", "2", "--jobs", "1", "--out", str(out)]
    result = run("tune", *command, "--json")
    assert result.exit_code == 0, result.stderr
    assert "recipes: 3 trials, best 0." in result.stderr
    return command, json.loads(result.stdout)


def test_json_has_the_documented_keys_and_is_in_the_folder_too(finished: tuple[list[str], dict]) -> None:
    command, shown = finished
    out = Path(command[-1])
    assert list(shown) == KEYS
    assert json.loads((out / "results.json").read_text()) == shown
    assert [len(shown[name]) for name in ("trials", "plain_trials")] == [3, 3]  # the same search budget
    assert {one["recipe"] for one in shown["plain_trials"]} == {"none"}
    assert len({one["learning_rate"] for one in shown["plain_trials"]}) == 3
    assert shown["best"]["score"] == max(one["score"] for one in shown["trials"])
    assert shown["best"]["recipe"] in (out / "report.html").read_text()


def test_the_best_and_plain_training_run_on_seeds_that_the_search_has_not_seen(
    finished: tuple[list[str], dict],
) -> None:
    _, shown = finished
    arms = shown["comparison"]["arms"]
    assert [arm["name"] for arm in arms] == ["none", shown["best"]["recipe"]]
    for arm in arms:
        assert [one["seed"] for one in arm["seeds"]] == [0, 1]
        assert all(one["best_epoch"] is not None for one in arm["seeds"])
    assert not {0, 1} & set(shown["search"]["seeds"])
    assert arms[1]["difference_low"] is not None


def test_the_same_command_shows_the_same_from_what_is_stored(finished: tuple[list[str], dict], monkeypatch) -> None:
    command, shown = finished

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a stored run was repeated")

    monkeypatch.setattr("tikhon.studies.workers._Processes", refuse)
    assert json.loads(run("tune", *command, "--json").stdout) == shown
    said = run("tune", *command).stdout
    assert "\x1b" not in said
    assert f"Best of 3 trials: {shown['best']['recipe']}" in said
    assert shown["code"] in said
    assert max(map(len, said.split("import torch")[0].splitlines())) <= 80
    assert f"Report: {command[-1]}/report.html" in said


def test_time_ends_a_search_too() -> None:
    result = run("tune", *TINY, "--space", "(l2 | mixup)", "--minutes", "0.0001", "--seeds", "1", "--jobs", "1",
                 "--learning-rate", "0.1", "--json")  # fmt: skip
    shown = json.loads(result.stdout)
    assert [len(shown[name]) for name in ("trials", "plain_trials")] == [1, 1]
    assert Path("tikhon-tune/trials.db").exists()


def test_the_clock_of_a_search_starts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the second would find its time spent by the first."""
    begun = []

    def engine(search: Search, budget: Budget, show: object) -> list[Trial]:
        begun.append((search.name, budget.seconds, budget.elapsed))
        time.sleep(0.5)
        return [Trial(0, Candidate("none", 0.1), {}, "finished", (0.5,), (0.1,))]

    monkeypatch.setattr("tikhon.cli.tuning.chosen_search", lambda *_: engine)
    result = run("tune", *TINY, "--space", "l2(strength=0.1..1)", "--minutes", "4", "--seeds", "1", "--jobs", "1")
    assert result.exit_code == 0, result.stderr
    assert [(name, seconds) for name, seconds, _ in begun] == [("plain training", 120.0), ("recipes", 120.0)]
    assert all(elapsed < 0.4 for *_, elapsed in begun)


def test_the_code_to_paste_runs_and_trains_what_was_found() -> None:
    candidate = Candidate("l2(strength=linear(0, 0.01))+mixup(alpha=0.3)+early_stopping", 0.05)
    code = python_code(candidate, "adam", 2, "values")
    assert "tk.Recipe(tk.L2(strength=tk.linear(0, 0.01)), tk.MixUp(alpha=0.3), base=" in code
    given = {"model": torch.nn.Linear(3, 1), "train": range(8)}
    exec(code, given)
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    before = given["model"].weight.clone()
    given["recipe"].loss(x, y, index=torch.arange(8)).backward()
    given["optimizer"].step()
    assert isinstance(given["optimizer"], torch.optim.Adam)
    assert given["optimizer"].param_groups[0]["lr"] == 0.05
    assert not torch.equal(before, given["model"].weight)
    assert "tk.Recipe()" in python_code(Candidate("none", 0.1), "sgd", 2, "classes")


WRONG = {
    "space": (["--space", "elr("], "is no space of recipes"),
    "method": (["--space", "elrr(strength=1..2)"], "Did you mean 'elr'"),
    "contradiction": (["--space", "sam? + asam?"], "holds sam+asam, which cannot be trained"),
    "not for this data": (["--space", "l2 + cutmix?"], "holds l2+cutmix, which cannot be trained"),
    "learning rate": (["--space", "elr", "--learning-rate", "fast"], "0.01..0.3"),
    "trials": (["--space", "elr", "--trials", "0"], "--trials"),
    "minutes": (["--space", "elr", "--minutes", "-1"], "--minutes"),
    "seeds": (["--space", "elr", "--seeds", "0"], "--seeds"),
    "optimizer": (["--space", "elr", "--optimizer", "adan"], "Did you mean 'adam'"),
    "engine": (["--space", "elr", "--engine", "optima"], "Did you mean 'optuna'"),
    "address": (["--space", "elr", "--address", "auto"], "add --engine ray"),
    "data": (["--space", "elr", "--data", "win"], "Did you mean 'wine'"),
    "model": (["--space", "elr", "--model", "cn"], "Did you mean 'cnn'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_before_anything_is_written(case: str) -> None:
    arguments, words = WRONG[case]
    assert words in refused("tune", *TINY, *arguments)
    assert list(Path().iterdir()) == []


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "tikhon.integrations.optuna", raising=False)
    assert "pip install 'tikhon[optuna]'" in refused("tune", *TINY, "--space", "elr")
    assert list(Path().iterdir()) == []
