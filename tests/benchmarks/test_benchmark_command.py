"""`benchmarks/run.py` and `benchmarks/scaling.py` as `make bench` calls them. Nothing here stores a number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("psutil")
pytest.importorskip("torchmetrics")
ROOT = Path(__file__).parents[2]
RESULTS, SCALING = ROOT / "benchmarks" / "results.json", ROOT / "benchmarks" / "scaling.json"

pytestmark = pytest.mark.slow


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """A run, after which the stored rows are what they were."""
    before = [path.read_bytes() if path.exists() else None for path in (RESULTS, SCALING)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    ran = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert [path.read_bytes() if path.exists() else None for path in (RESULTS, SCALING)] == before
    return ran


@pytest.fixture
def folder(tmp_path) -> Path:
    """The command beside two cases of a folder of its own, one of which is wrong, where all peers are installed."""
    cases = tmp_path / "benchmarks"
    cases.mkdir()
    for name in ("__init__.py", "harness.py", "run.py", "stored.py"):
        (cases / name).write_text((ROOT / "benchmarks" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (cases / "own").mkdir()
    (cases / "own" / "__init__.py").touch()
    (cases / "own" / "sums.py").write_text(
        "import torch\n"
        "from benchmarks.harness import Pair, case\n\n"
        "@case('right', peer='torch')\n"
        "def right():\n    x = torch.rand(9)\n    return Pair(x.sum, lambda: x.mean() * 9)\n\n"
        "@case('wrong', peer='torch')\n"
        "def wrong():\n    x = torch.rand(9)\n    return Pair(x.sum, x.mean)\n",
        encoding="utf-8",
    )
    return cases


def test_dry_compares_answers_and_fails_where_they_differ(folder) -> None:
    ran = command(str(folder / "run.py"), "own", "--dry")
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == ["same  right (torch)", "OTHER  wrong (torch)"]
    assert not (folder / "results.json").exists()
    assert command(str(folder / "run.py"), "own", "--dry", "--only", "right").returncode == 0


def test_force_measures_and_stores_nothing(folder) -> None:
    ran = command(str(folder / "run.py"), "own", "--only", "right", "--force", "--seconds", "0.1")
    assert ran.returncode == 0, ran.stderr
    assert "right" in ran.stdout
    assert "1 cases: median ratio" in ran.stdout
    assert not (folder / "results.json").exists()


def test_unknown_names_are_said(folder) -> None:
    assert "No case of own has 'nobody'" in command(str(folder / "run.py"), "own", "--only", "nobody").stdout
    nowhere = command(str(folder / "run.py"), "nowhere", "--dry")
    assert nowhere.returncode == 2
    assert "no folder benchmarks/nowhere" in nowhere.stderr
    assert "No series has 'nobody'" in command("benchmarks/scaling.py", "--only", "nobody").stdout


def test_answers_of_cases_whose_peers_are_here() -> None:
    """In a process of its own: peers may warn, and leave things behind."""
    code = (
        "import importlib, pathlib, sys, warnings; sys.path.insert(0, '.'); warnings.filterwarnings('ignore')\n"
        "import torch; torch.set_num_threads(1)\n"
        "from benchmarks.harness import cases\n"
        "for path in sorted(pathlib.Path('benchmarks/peers').glob('[!_]*.py')):\n"
        "    try:\n"
        "        importlib.import_module(f'benchmarks.peers.{path.stem}')\n"
        "    except ModuleNotFoundError:\n"
        "        pass\n"
        "assert len(cases()) > 10\n"
        "for one in cases():\n"
        "    torch.manual_seed(0)\n"
        "    assert one.pair().agree(), (one.name, one.peer)\n"
    )
    ran = command("-c", code)
    assert ran.returncode == 0, ran.stderr
