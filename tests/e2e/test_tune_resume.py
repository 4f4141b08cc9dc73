"""The search in real processes: killed at any moment, it ends with the trials of an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SEEDS, TRIALS = 3, 3
TIKHON = [sys.executable, "-c", "from tikhon.cli import main; main()"]
COMMAND = [
    *TIKHON, "tune", "--data", "wine", "--train-size", "40", "--epochs", "2", "--seeds", "1", "--trials", str(TRIALS),
    "--space", "l2(strength=1e-5..1e-1) + mixup?", "--json",
]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills process groups")]


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*COMMAND, "--out", "out", *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def count(folder: Path, query: str) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{folder}/out/trials.db?mode=rw", uri=True)) as database,
    ):
        return int(database.execute(query).fetchone()[0])
    return 0


def runs(folder: Path) -> int:
    """How many seeds are on the disk."""
    return count(folder, "SELECT COUNT(*) FROM trial_intermediate_values")


def trials(text: str) -> list[Any]:
    shown = json.loads(text)
    return [
        {name: value for name, value in trial.items() if name != "seconds"}
        for trial in [*shown["plain_trials"], *shown["trials"]]
    ]


def ended(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def test_killed_amid_the_search_it_ends_with_the_same_trials(tmp_path: Path) -> None:
    undisturbed = trials(ended(start(tmp_path / "calm", "--jobs", "1")))
    wild = tmp_path / "wild"
    process = start(wild, "--jobs", "1")
    end = time.monotonic() + 200
    while runs(wild) < SEEDS * TRIALS + 2 and time.monotonic() < end:  # of plain training all, of recipes the first two
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = runs(wild)
    assert before >= SEEDS * TRIALS + 2
    assert trials(ended(start(wild, "--jobs", "1"))) == undisturbed
    assert len(undisturbed) == 2 * TRIALS
    states = {
        state: count(wild, f"SELECT COUNT(*) FROM trials WHERE state = '{state}'") for state in ("RUNNING", "FAIL")
    }
    assert states["RUNNING"] == 0
    assert states["FAIL"] <= 1  # the one in flight


def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path / "out", "--jobs", "2")
    end = time.monotonic() + 200
    while runs(tmp_path / "out") < 1 and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C reaches all processes of a terminal
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ""
    assert "the same command continues" in " ".join(errors.split())
    assert "Traceback" not in errors


def test_two_commands_on_one_database_share_a_search(tmp_path: Path) -> None:
    storage = ("--storage", f"sqlite:///{tmp_path / 'shared.db'}", "--jobs", "1")
    both = [start(tmp_path / name, *storage) for name in ("one", "other")]
    shown = [trials(ended(process)) for process in both]
    with contextlib.closing(sqlite3.connect(tmp_path / "shared.db")) as database:
        stored = dict(database.execute("SELECT state, COUNT(*) FROM trials GROUP BY state").fetchall())
    assert sum(stored.values()) in range(
        2 * TRIALS, 2 * TRIALS + 3
    )  # both may have begun the last one of a search at once
    assert set(stored) <= {"COMPLETE", "PRUNED"}
    assert all(len(one) >= 2 * TRIALS - 2 for one in shown)
