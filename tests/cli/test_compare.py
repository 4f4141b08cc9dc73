import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner, Result

import tikhon
from tikhon.cli.app import app

TINY = ["--data", "digits", "--train-size", "100", "--epochs", "2"]
NOISY = ["--label-noise", "0.3", "--methods", "none,early_stopping,mixup"]
EXAMPLES = Path(__file__).parents[2] / "examples"
ARM_KEYS = [
    "name",
    "mean",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "calibration_error",
    "gap",
    "relative_time",
    "relative_memory",
    "seeds",
]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "80"})


def without_times(shown: dict) -> dict:
    for arm in shown["arms"]:
        del arm["relative_time"]
        for run in arm["seeds"]:
            run.pop("seconds", None)
    return shown


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A user's module, forgotten again after the test."""
    yield tmp_path / "mine.py"
    sys.modules.pop("mine", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A comparison that has run, and what it printed."""
    out = tmp_path_factory.mktemp("compare") / "out"
    result = call(*TINY, *NOISY, "--seeds", "3", "--jobs", "2", "--json", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    return out, json.loads(result.stdout)


def test_json_has_the_documented_keys_and_is_in_the_folder_too(finished: tuple[Path, dict]) -> None:
    out, shown = finished
    assert list(shown) == ["task", "arms"]
    assert [arm["name"] for arm in shown["arms"]] == ["none", "early_stopping", "mixup"]
    assert all(list(arm) == ARM_KEYS for arm in shown["arms"])
    assert all([run["seed"] for run in arm["seeds"]] == [0, 1, 2] for arm in shown["arms"])
    assert shown["task"]["label_noise"] == 0.3
    assert shown["task"]["train_samples"] == 100
    assert json.loads((out / "results.json").read_text()) == shown
    page = (out / "report.html").read_text()
    assert "early_stopping" in page
    assert "https://" not in page.replace("https://www.w3.org", "")


def test_the_statistics_are_those_of_the_seeds(finished: tuple[Path, dict]) -> None:
    arms = {arm["name"]: arm for arm in finished[1]["arms"]}
    runs = {name: {key: [run[key] for run in arm["seeds"]] for key in arm["seeds"][0]} for name, arm in arms.items()}
    for name, arm in arms.items():
        metric = np.array(runs[name]["metric"])
        low, high = stats.t.interval(0.95, 2, metric.mean(), stats.sem(metric))
        assert [arm["mean"], arm["low"], arm["high"]] == pytest.approx([metric.mean(), low, high])
        assert arm["calibration_error"] == pytest.approx(np.mean(runs[name]["calibration_error"]))
        gap = np.array(runs[name]["train_metric"]) - metric
        assert arm["gap"] == pytest.approx(gap.mean())
        for key, cost in (("seconds", "relative_time"), ("peak_memory", "relative_memory")):
            ratios = [one / plain for one, plain in zip(runs[name][key], runs["none"][key], strict=True)]
            assert arm[cost] == pytest.approx(statistics.median(ratios))
    pairs = stats.ttest_rel(runs["mixup"]["metric"], runs["none"]["metric"]).confidence_interval(0.95)
    assert [arms["mixup"]["difference_low"], arms["mixup"]["difference_high"]] == pytest.approx([pairs.low, pairs.high])
    assert arms["none"]["difference"] is None
    assert arms["mixup"]["mean"] != arms["none"]["mean"]


def test_arms_of_a_seed_share_all_but_their_methods(finished: tuple[Path, dict]) -> None:
    """Early stopping trains as `none` does and keeps an epoch of it: at the first epoch both stand alike."""
    none, early, _ = finished[1]["arms"]
    for plain, kept in zip(none["seeds"], early["seeds"], strict=True):
        assert kept["best_epoch"] in (0, 1)
        if kept["best_epoch"] == 1:
            assert kept["metric"] == plain["metric"]
        assert kept["validation_metric"] >= plain["validation_metric"]


def test_a_second_run_shows_the_same_from_the_store_and_another_folder_gives_the_same(
    finished: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, shown = finished
    settings = [*TINY, *NOISY, "--json"]
    fresh = call(*settings, "--seeds", "2", "--jobs", "1", "--out", "fresh")
    first_two = [{**arm, "seeds": arm["seeds"][:2]} for arm in shown["arms"]]
    for arm, expected in zip(without_times(json.loads(fresh.stdout))["arms"], first_two, strict=True):
        runs = [{key: value for key, value in run.items() if key != "seconds"} for run in expected["seeds"]]
        assert arm["seeds"] == runs

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a stored run was repeated")

    monkeypatch.setattr("tikhon.cli.engines.run_cells", refuse)
    again = call(*settings, "--seeds", "3", "--out", str(out))
    assert json.loads(again.stdout) == shown
    assert "9 of 9 runs are stored" in again.stderr
    # Runs of another comparison in the same folder are not shown.
    part = call(*settings, "--methods", "none,mixup", "--seeds", "2", "--out", str(out))
    assert [arm["name"] for arm in json.loads(part.stdout)["arms"]] == ["none", "mixup"]


def test_the_table_fits_80_columns_and_a_pipe_gets_no_escape_codes(finished: tuple[Path, dict]) -> None:
    out, shown = finished
    result = call(
        *TINY, "--label-noise", "0.3", "--methods", "none,early_stopping,mixup", "--seeds", "3", "--out", str(out)
    )
    assert result.exit_code == 0
    assert f"{100 * shown['arms'][2]['mean']:.1f}" in result.stdout
    table = result.stdout.split("\nReport: ")[0]
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "\x1b" not in result.output
    assert f"Report: {out / 'report.html'}" in result.stdout


def test_none_is_added_first_and_said(finished: tuple[Path, dict]) -> None:
    out, _ = finished
    result = call(*TINY, "--label-noise", "0.3", "--methods", "mixup", "--seeds", "3", "--json", "--out", str(out))
    assert [arm["name"] for arm in json.loads(result.stdout)["arms"]] == ["none", "mixup"]
    assert "none is added" in result.stderr


def test_a_diverged_arm_costs_no_other_arm_its_runs() -> None:
    arguments = [*TINY, "--methods", "none,mixup,l2(strength=1e20)", "--seeds", "2", "--jobs", "1", "--out", "out"]
    shown = json.loads(call(*arguments, "--json").stdout)
    none, mixup, diverged = shown["arms"]
    assert none["mean"] > 0
    assert mixup["difference"] is not None
    assert diverged["mean"] is None
    assert [run["metric"] for run in diverged["seeds"]] == [None, None]
    assert "not finite" in diverged["seeds"][0]["failed"]
    table = " ".join(call(*arguments).stdout.split())
    assert "l2(strength=1e20) diverged in 2 of 2 seeds (0, 1)" in table
    assert "diverged in 2 of 2 seeds" in Path("out/report.html").read_text()


def test_regression_reports_r_squared() -> None:
    result = call(
        "--data",
        "diabetes",
        "--epochs",
        "3",
        "--methods",
        "none,l2",
        "--seeds",
        "2",
        "--jobs",
        "1",
        "--json",
        "--out",
        "out",
    )
    shown = json.loads(result.stdout)
    assert shown["task"]["metric"] == "r2"
    assert shown["arms"][1]["calibration_error"] is None
    assert all(run["metric"] < 1 for run in shown["arms"][1]["seeds"])


WRONG = {
    "data": (["--data", "digit", "--methods", "elr"], "Did you mean 'digits'"),
    "method": (["--data", "digits", "--methods", "elr,mixop"], "Did you mean 'mixup'"),
    "argument": (["--data", "digits", "--methods", "elr(strenght=3)"], "strenght"),
    "no recipe": (["--data", "digits", "--methods", "elr++"], "not a recipe"),
    "no arm": (["--data", "digits", "--methods", ","], "names no arm"),
    "twice": (["--data", "digits", "--methods", "elr+mixup,mixup + elr"], "'elr+mixup' and 'mixup + elr'"),
    "impossible": (["--data", "digits", "--methods", "elr+elr(strength=2)"], "key 'elr'"),
    "classes only": (["--data", "diabetes", "--methods", "elr"], "class scores"),
    "model": (["--data", "digits", "--methods", "elr", "--model", "cn"], "Did you mean 'cnn'"),
    "model unfit": (["--data", "wine", "--methods", "elr", "--model", "cnn"], "Use mlp"),
    "no module": (["--data", "nowhere:load", "--methods", "elr"], "no module 'nowhere'"),
    "no model module": (["--data", "digits", "--methods", "elr", "--model", "nowhere:net"], "no module 'nowhere'"),
    "shift": (["--data", "wine", "--methods", "elr", "--shift", "rotation"], "images"),
    "noise kind": (["--data", "digits", "--methods", "elr", "--noise-kind", "symetric"], "Did you mean 'symmetric'"),
    "noise": (["--data", "digits", "--methods", "elr", "--label-noise", "1.5"], "[0, 1]"),
    "train size": (["--data", "digits", "--methods", "elr", "--train-size", "99999"], "99999"),
    "seeds": (["--data", "digits", "--methods", "elr", "--seeds", "0"], "--seeds"),
    "jobs": (["--data", "digits", "--methods", "elr", "--jobs", "0"], "--jobs"),
    "epochs": (["--data", "digits", "--methods", "elr", "--epochs", "0"], "epochs"),
    "optimizer": (["--data", "digits", "--methods", "elr", "--optimizer", "adan"], "Did you mean 'adam'"),
    "learning rate": (["--data", "digits", "--methods", "elr", "--learning-rate", "nan"], "learning rate"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_ends_with_a_sentence_and_exit_code_2_before_anything_is_written(case: str) -> None:
    arguments, words = WRONG[case]
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert list(Path().iterdir()) == []


OWN_DATA = {
    "empty": ("numpy.zeros((0, 3)), numpy.zeros(0, dtype=int)", "empty"),
    "one class": ("numpy.zeros((9, 3)), numpy.zeros(9, dtype=int)", "one class"),
    "other samples": ("numpy.random.default_rng().normal(size=(60, 3)), numpy.arange(60) % 2", "at every call"),
    "crash": ("1 / 0", "ZeroDivisionError"),
}


@pytest.mark.parametrize("case", OWN_DATA)
def test_the_users_data_are_refused_with_a_reason(case: str, own: Path) -> None:
    expression, words = OWN_DATA[case]
    own.write_text(f"import numpy\n\ndef load():\n    return {expression}\n")
    result = call("--data", "mine:load", "--methods", "none,mixup")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "mine:load" in result.stderr
    assert not Path("tikhon-compare").exists()


def test_a_misspelt_function_gets_near_misses(own: Path) -> None:
    own.write_text("def load_everything():\n    return 1\n")
    result = call("--data", "mine:load_everythin", "--methods", "none")
    assert result.exit_code == 2
    assert "load_everything" in result.stderr


def test_a_damaged_database_is_refused_and_left_alone(finished: tuple[Path, dict]) -> None:
    whole = (finished[0] / "results.db").read_bytes()
    Path("out").mkdir()
    Path("out/results.db").write_bytes(whole[: len(whole) // 2])
    result = call(*TINY, "--methods", "none", "--out", "out")
    assert result.exit_code == 2
    assert "results.db" in result.stderr
    assert Path("out/results.db").read_bytes() == whole[: len(whole) // 2]


def test_changed_data_and_changed_models_are_other_runs(own: Path) -> None:
    source = (
        "import numpy, torch\n\ndef load():\n"
        "    x = numpy.random.default_rng(0).normal(size=(80, 3))\n    return x, (x[:, 0] > {shift}).astype(int)\n\n"
        "def net(task):\n    return torch.nn.Linear(3, task.outputs)\n"
    )
    arguments = ["--data", "mine:load", "--model", "mine:net", "--epochs", "1", "--methods", "none", "--seeds", "1"]
    for shift, stored in (("0", False), ("0", True), ("0.3", False)):
        own.write_text(source.format(shift=shift))
        sys.modules.pop("mine", None)
        result = call(*arguments, "--out", "out")
        assert result.exit_code == 0, result.stderr
        assert ("1 of 1 runs are stored" in result.stderr) is stored


def test_the_example_of_own_data_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As its docstring shows it, but quicker."""
    monkeypatch.chdir(EXAMPLES)
    command = next(line.split() for line in Path("own_data.py").read_text().splitlines() if "tikhon compare" in line)
    assert command[:2] == ["tikhon", "compare"]
    quick = [*command[2:], "--seeds", "1", "--epochs", "2", "--jobs", "1", "--out", str(tmp_path / "out"), "--json"]
    try:
        shown = json.loads(call(*quick).stdout)
    finally:
        sys.modules.pop("own_data", None)
    assert shown["task"]["data"] == "own_data:load"
    assert all(math.isfinite(arm["mean"]) for arm in shown["arms"])


def test_help_and_version_do_not_wait_for_torch() -> None:
    program = (
        "import sys\nfrom tikhon.cli import main\nsys.argv = ['tikhon', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    for arguments, words in (
        (["--help"], "compare"),
        (["compare", "--help"], "wrong labels"),
        (["--version"], tikhon.__version__),
    ):
        shown = subprocess.run(
            [sys.executable, "-c", program.format(arguments=arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
            check=False,
        )
        assert shown.returncode == 0, shown.stderr
        assert words in shown.stdout
        assert max(len(line) for line in shown.stdout.splitlines()) <= 80


def test_every_public_name_of_the_package_is_there() -> None:
    for name in tikhon.__all__:
        assert getattr(tikhon, name) is not None
    with pytest.raises(AttributeError, match="Recipe"):
        tikhon.Recpie  # noqa: B018


def test_ctrl_c_says_that_the_same_command_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tikhon.cli.engines.run_cells", interrupted)
    result = call(*TINY, "--methods", "none")
    assert result.exit_code == 130
    assert "the same command continues with the rest" in result.stderr
    assert "Traceback" not in result.output
