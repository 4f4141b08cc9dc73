"""The example runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = "`make vision` tests this in an environment of its own"
pytest.importorskip("torchvision", reason=HERE)
pytest.importorskip("timm", reason=HERE)

EXAMPLE = Path(__file__).parents[2] / "examples" / "vision_models.py"


def test_it_says_what_each_model_reached(tmp_path) -> None:
    command = [sys.executable, str(EXAMPLE), "--epochs", "2"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    reached = dict(line.rsplit(" ", 1) for line in ran.stdout.splitlines())
    assert float(reached["test accuracy of resnet18"]) > 0.3
    assert "test accuracy of vit_tiny_patch16_224" in reached
