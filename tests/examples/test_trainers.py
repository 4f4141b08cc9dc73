"""The examples of every trainer run, in one process and in two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMMANDS = [
    "python plain_loop.py",
    "python plain_loop.py --processes 2 --tensorboard runs",
    "python in_lightning.py",
    "python in_lightning.py --processes 2",
    "python in_transformers.py",
    "torchrun --nproc-per-node 2 in_transformers.py",
    "python in_accelerate.py",
    "accelerate launch --cpu --num_processes 2 --main_process_port 29532 in_accelerate.py",
    "python in_scikit_learn.py --processes 2",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_says_what_it_reached(command, tmp_path) -> None:
    program, *words = command.split()
    words = [str(ROOT / "examples" / word) if word.endswith(".py") else word for word in words]
    ran = subprocess.run(
        [str(BIN / program), *words, "--epochs", "5"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = [line for line in ran.stdout.splitlines() if line.startswith("test accuracy")]
    assert len(said) == 1
    assert float(said[0].split()[-1]) > 0.3
