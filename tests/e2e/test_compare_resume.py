"""The installed command in real processes: killed at any moment, it ends with the numbers of an undisturbed run."""

import contextlib
import json
import os
import pty
import random
import signal
import sqlite3
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from tikhon.studies.store import Store

TIKHON = Path(sysconfig.get_path("scripts")) / "tikhon"
COMMAND = [
    str(TIKHON), "compare", "--data", "digits", "--train-size", "100", "--label-noise", "0.3", "--epochs", "2",
    "--methods", "none,elr,mixup", "--seeds", "4", "--jobs", "2", "--json", "--out", "out",
]  # fmt: skip
RUNS = 12

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills process groups")


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def at_a_terminal(folder: Path, **environment: str) -> str:
    """What a terminal shows of a short comparison."""
    screen, stream = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND[:8], "--methods", "none", "--seeds", "1", "--jobs", "1", "--epochs", "2"],
        cwd=folder,
        stdout=stream,
        stderr=stream,
        env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm", **environment},
    )
    os.close(stream)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end was closed
        while piece := os.read(screen, 4096):
            shown += piece
    os.close(screen)
    assert process.wait(timeout=60) == 0, shown
    return shown.decode()


def stored(folder: Path) -> int:
    """How many runs are on the disk. Opened to write, since a kill amid a commit leaves a journal to roll back."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{folder}/out/results.db?mode=rw", uri=True)) as database,
    ):
        return int(database.execute("SELECT COUNT(*) FROM results").fetchone()[0])
    return 0


def numbers(text: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(text)
    for arm in shown["arms"]:
        del arm["relative_time"]
        for run in arm["seeds"]:
            del run["seconds"]
    return shown


def test_killed_again_and_again_it_ends_with_the_same_numbers(tmp_path: Path) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    calm.mkdir()
    wild.mkdir()
    undisturbed, errors = start(calm).communicate(timeout=300)
    assert undisturbed, errors
    assert "\x1b" not in undisturbed + errors
    delays = random.Random(0)
    for runs in (0, 1, 6, RUNS):  # the last one dies while it sums up and draws
        process = start(wild)
        end = time.monotonic() + 300
        while stored(wild) < runs and time.monotonic() < end:
            time.sleep(0.003)
        time.sleep(delays.uniform(0, 0.3 if runs else 2))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert stored(wild) >= runs
        for report in ("results.json", "report.html"):
            assert not (wild / "out" / report).exists()
    disturbed, errors = start(wild).communicate(timeout=300)
    assert f"{RUNS} of {RUNS} runs are stored" in errors
    assert numbers(disturbed) == numbers(undisturbed)
    assert numbers((wild / "out" / "results.json").read_text()) == numbers(undisturbed)


def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "out"):
        process = start(tmp_path)
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert output == ""
    assert f"another process (id {os.getpid()})" in errors
    assert "Traceback" not in errors


def test_a_terminal_gets_bars_and_with_no_color_plain_lines(tmp_path: Path) -> None:
    colour, plain = tmp_path / "colour", tmp_path / "plain"
    colour.mkdir()
    plain.mkdir()
    bars = at_a_terminal(colour)
    assert "\x1b[" in bars
    assert "none, seed 0" in bars
    lines = at_a_terminal(plain, NO_COLOR="1")
    assert "\x1b" not in lines
    assert "1 of 1 runs done" in lines
    assert "Comparison on digits" in lines
