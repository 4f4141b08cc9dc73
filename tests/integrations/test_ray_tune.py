"""Ray Tune, the real thing: a search that ends within its budget, is stopped where it is hopeless, and goes on."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import ray
from typer.testing import CliRunner

pytest.importorskip("pyarrow", reason="pip install 'tikhon[ray-tune]'")

from tikhon.cli.app import app
from tikhon.core.errors import TikhonError
from tikhon.integrations import ray_tune
from tikhon.integrations.ray import connected
from tikhon.studies.experiment import run_cell
from tikhon.tuning.search import STARTUP, Budget, Search, Setting, best
from tikhon.tuning.space import Candidate, read_rate, read_space

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SETTING = Setting({"source": "wine", "train_size": 40}, "mlp", 2, 32, "sgd", {})
WHAT = Search("recipes", read_space("l2(strength=1e-5..1e-1) + mixup?", read_rate("0.002..0.2")), SETTING)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with connected(cpus=2):
        yield
    assert not ray.is_initialized()


def run(what, url, budget, *, jobs=1, updates=None):
    show = (lambda update: None) if updates is None else updates.append
    return ray_tune.search(what, budget, show, storage=url, owner="me", address=None, jobs=jobs)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'trials.db'}"


def test_a_search_ends_with_its_trials_and_goes_on_from_them(url: str, capfd) -> None:
    updates = []
    trials = run(WHAT, url, Budget(trials=9), updates=updates)
    assert [one.number for one in trials] == list(range(9))
    assert [one.trials for one in updates] == list(range(1, 10))
    assert capfd.readouterr().out == ""
    assert all(one.state == "finished" for one in trials[:STARTUP])
    assert {one.state for one in trials} <= {"finished", "stopped"}
    for one in trials:
        assert (one.state == "finished") == (len(one.scores) == len(WHAT.seeds) == len(one.seconds))
    found = best(trials)
    again = run_cell(SETTING.cell(found.candidate, WHAT.seeds[1]), lambda _: None)
    assert again["validation_metric"] == found.scores[1]  # the numbers of any engine
    more = run(WHAT, url, Budget(trials=11), jobs=2)
    assert more[:9] == trials
    assert len(more) == 11


def test_the_same_seed_draws_the_same_trials(tmp_path: Path) -> None:
    drawn = [
        [one.candidate for one in run(replace(WHAT, seed=seed), f"sqlite:///{tmp_path / name}", Budget(trials=3))]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_was_left_running_is_run_again(url: str) -> None:
    run(WHAT, url, Budget(trials=1))
    study = optuna.load_study(study_name=None, storage=url)
    study.enqueue_trial({"l2.strength": 0.001, "mixup": "with", "learning_rate": 0.1}, user_attrs={"owner": "me"})
    study.ask()  # and the process dies
    trials = run(WHAT, url, Budget(trials=2))
    assert [one.state for one in trials] == ["finished", "finished"]
    assert trials[1].candidate == Candidate("l2(strength=0.001)+mixup", 0.1)


def test_a_run_that_diverged_ends_its_trial_and_no_other(url: str) -> None:
    space = read_space("(l2(strength=1e20) | mixup)", 0.1)
    what = Search("recipes", space, SETTING, first=tuple(space.all_points()))
    trials = run(what, url, Budget(trials=2))
    assert [one.state for one in trials] == ["diverged", "finished"]
    assert "not finite" in trials[0].reason
    assert best(trials).candidate.recipe == "mixup"


def test_time_ends_a_search_after_one_trial_at_the_least(url: str) -> None:
    begin = time.monotonic()
    assert len(run(WHAT, url, Budget(seconds=0.01))) == 1
    assert time.monotonic() - begin < 120


def test_what_fails_everywhere_is_said(url: str) -> None:
    what = replace(WHAT, setting=replace(SETTING, task={"source": "wine", "train_size": 99999}))
    with pytest.raises(TikhonError, match="99999"):
        run(what, url, Budget(trials=1))


def test_the_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["tune", "--data", "wine", "--train-size", "40", "--epochs", "2", "--trials", "2", "--seeds", "1"]
    done = CliRunner().invoke(
        app, [*command, "--space", "l2? + mixup?", "--learning-rate", "0.1", "--engine", "ray", "--json"]
    )
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert [one["recipe"] for one in shown["trials"]] == ["l2+mixup", "l2"]
