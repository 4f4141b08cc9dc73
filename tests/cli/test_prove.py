"""`tikhon prove`: in real processes, in a copy of the checkout that has two small methods with studies of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import refused, run

ROOT = Path(__file__).parents[2]

METHOD = '''
"""Nothing, for a test."""
from tikhon.core.card import Card
from tikhon.core.method import Method


class {name}(Method):
    """Nothing."""

    card = Card("Nothing", 2026, "", (), "0", "It does good.", "", "", "")
'''

# Its numbers are made up, at once: with seed 2 the second candidate would be better on the test split, but not on
# validation, and the arm `plain` has a candidate that diverges.
STUDY = '''
"""For a test."""
import math
from tikhon.studies.study import Expectation, Study


def run(settings, seed, report):
    report(0.5)
    if settings["value"] is None:
        return {"validation": math.nan}
    metric = settings["value"] + 0.01 * seed * settings.get("slope", 1)
    return {"validation": settings["value"], "metric": metric, "seconds": settings["value"]}


study = Study(
    question="Does it?",
    setting="nothing",
    run=run,
    arms={
        "plain": [{"value": None}, {"value": 0.5}],
        "good": [{"value": 0.75, "slope": 2}, {"value": 0.6, "slope": 90}],
    },
    expectations=[Expectation("good", "plain", margin=0.2)],
    seeds=3,
)
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    (root / "pyproject.toml").write_text("")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    package = root / "src" / "tikhon"
    entries = [path for folder in ("methods", "studies") for path in package.glob(f"{folder}/*/*.py")]
    others = [
        path for folder in ("measures", "tuning", "solvers", "blocks") for path in package.glob(f"{folder}/**/*.py")
    ]
    entries += [path for path in others if "\ncard = Card(" in path.read_text()]
    for path in entries:
        if path.name != "__init__.py":
            path.unlink()
    for name, kind in (("first", "First"), ("second", "Second"), ("unstudied", "Unstudied")):
        (package / "methods" / "targets" / f"{name}.py").write_text(METHOD.format(name=kind))
    for name in ("first", "second"):
        (package / "studies" / "targets" / f"{name}.py").write_text(STUDY)
    return root


@pytest.fixture
def fresh(checkout: Path) -> Path:
    shutil.rmtree(checkout / "evidence", ignore_errors=True)
    return checkout


def tikhon(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-c", "from tikhon.cli import main; main()", *words]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_study_is_run_told_and_stored(fresh: Path) -> None:
    done = tikhon(fresh, "prove", "first")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    # 0.75 - 0.5 + 0.01 * seed: mean 0.26, standard deviation 0.01, t(2; 0.975) = 4.303.
    assert "good vs plain: metric higher by 0.2 +0.260 [0.235, 0.285] yes 1.50x" in said
    assert "replayed (3 seeds; 2 candidates an arm, chosen by validation)" in said
    assert "good: value 0.75, slope 2" in said
    assert "Traceback" not in done.stderr
    stored = json.loads((fresh / "evidence" / "targets" / "first.json").read_text())
    assert stored["status"] == "replayed"
    assert stored["chosen"] == {"plain": {"value": 0.5}, "good": {"value": 0.75, "slope": 2}}
    assert stored["measures"]["good"]["metric"] == pytest.approx([0.75, 0.77, 0.79])
    assert stored["seeds"] == [0, 1, 2]
    assert set(stored["versions"]) == {"tikhon", "torch", "python"}


def test_a_quick_look_does_not_take_the_place_of_the_whole_study(fresh: Path, tmp_path: Path) -> None:
    done = tikhon(fresh, "prove", "first", "--seeds", "1", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "no verdict" in done.stdout
    assert "Not stored: the study asks for 3 seeds" in done.stdout
    assert not (fresh / "evidence").exists()
    assert tikhon(fresh, "prove", "first", "--seeds", "2", "--jobs", "1", "--out", str(tmp_path)).returncode == 0
    assert json.loads((tmp_path / "targets" / "first.json").read_text())["seeds"] == [0, 1]
    assert not (fresh / "evidence").exists()


def test_all_runs_what_is_due_and_check_names_it(fresh: Path) -> None:
    done = tikhon(fresh, "prove", "--check", "--all")
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        ["first: missing", "second: missing", "unstudied: missing"],
    )
    assert tikhon(fresh, "prove", "first", "--jobs", "1").returncode == 0
    done = tikhon(fresh, "prove", "--all", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "without a study yet: unstudied" in done.stdout
    assert "current, not run again: first" in done.stdout
    assert (fresh / "evidence" / "targets" / "second.json").exists()
    done = tikhon(fresh, "prove", "--check", "first", "second")
    assert (done.returncode, done.stdout) == (0, "The evidence of 2 methods is current.\n")
    sources = [fresh / "src/tikhon/methods/targets/first.py", fresh / "src/tikhon/studies/targets/second.py"]
    before = [path.read_text() for path in sources]
    try:
        for path, text in zip(sources, before, strict=True):
            path.write_text(text + "# changed\n")
        done = tikhon(fresh, "prove", "--check")
    finally:
        for path, text in zip(sources, before, strict=True):
            path.write_text(text)
    stale = "stale: the method or its study has changed since"
    assert (done.returncode, done.stdout) == (1, f"first: {stale}\nsecond: {stale}\nunstudied: missing\n")


@pytest.mark.slow
def test_ray_finds_what_the_embedded_engine_finds_and_leaves_nothing_behind(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKHON_TEST", str(fresh))
    assert tikhon(fresh, "prove", "first", "--out", "embedded").returncode == 0
    done = tikhon(fresh, "prove", "--all", "--engine", "ray", "--out", "on_ray")
    assert done.returncode == 0, done.stderr
    assert {line.split(":")[0] for line in done.stderr.splitlines()} == {"tikhon"}
    assert done.stdout.startswith("without a study yet: unstudied\n\nFirst\n")
    first = json.loads((fresh / "on_ray" / "targets" / "first.json").read_text())
    assert first == json.loads((fresh / "embedded" / "targets" / "first.json").read_text())
    assert (fresh / "on_ray" / "targets" / "second.json").exists()
    # Whatever the command started has its variables.
    mark = f"TIKHON_TEST={fresh}".encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if mark in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # of somebody else, or gone
        return b""


def test_one_study_that_fails_does_not_end_the_others(fresh: Path) -> None:
    path = fresh / "src" / "tikhon" / "studies" / "targets" / "first.py"
    before = path.read_text()
    try:
        path.write_text(before.replace('"metric": metric', '"accuracy": metric'))
        done = tikhon(fresh, "prove", "--all", "--jobs", "1")
    finally:
        path.write_text(before)
    assert done.returncode == 2
    assert "first failed: The study expects something of 'metric'" in done.stderr
    assert "These studies failed: first." in done.stderr
    assert not (fresh / "evidence" / "targets" / "first.json").exists()
    assert (fresh / "evidence" / "targets" / "second.json").exists()


def test_damaged_evidence_is_refused_and_left_alone(fresh: Path) -> None:
    path = fresh / "evidence" / "targets" / "first.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"method": "first"')
    done = tikhon(fresh, "prove", "--check", "first")
    assert done.returncode == 2
    assert "first.json is not evidence that tikhon wrote" in " ".join(done.stderr.split())
    assert path.read_text() == '{"method": "first"'


def test_check_reads_what_is_stored(evidence_folder: Path) -> None:
    result = run("prove", "--check", "elr", "--out", str(evidence_folder))
    assert (result.exit_code, result.stdout) == (0, "The evidence of 1 method is current.\n")
    result = run("prove", "--check", "elr", "mixup", "--out", str(evidence_folder))
    assert (result.exit_code, result.stdout) == (1, "mixup: missing\n")


def test_wrong_input_is_named() -> None:
    assert "Did you mean 'mixup'" in refused("prove", "mixupp")
    assert "not both" in refused("prove", "elr", "--all")
    assert "at least 1" in refused("prove", "elr", "--seeds", "0")
    assert "at least 1" in refused("prove", "elr", "--jobs", "0")
    assert "Which methods?" in refused("prove", "--jobs", "1")
