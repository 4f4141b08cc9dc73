"""The examples that need nothing but the library, each as a user runs it, in a quick form."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def ran(name: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"\d+\.?\d*", text)]


def remembers(lines: list[str]) -> None:
    plain, replay = (numbers(line)[-1] for line in lines[1:])
    assert replay > plain + 0.2


def forgets(lines: list[str]) -> None:
    before, after = (numbers(line) for line in lines[1:])
    assert after[0] < 0.7 * before[0]


def proves(lines: list[str]) -> None:
    by_name = {line.split()[0]: numbers(line)[-1] for line in lines}
    assert by_name["certified"] > by_name["plain"] + 0.05


def reports_all(lines: list[str]) -> None:
    assert len(lines) == 4
    assert all("wrong labels memorised" in line for line in lines[1:])


def is_smaller(lines: list[str]) -> None:
    plain, pruned = (int(re.findall(r"([\d,]+) parameters", line)[0].replace(",", "")) for line in lines[:2])
    assert pruned < plain


def follows(lines: list[str]) -> None:
    strengths = numbers(lines[0])[1:]
    assert strengths[0] != 0.3
    assert 0.2 < numbers(lines[-1])[0] <= 1.0


def counts(lines: list[str]) -> None:
    assert all("evaluations of the field" in line for line in lines)


QUICK: dict[str, tuple[tuple[str, ...], Callable[[list[str]], None]]] = {
    "class_incremental": (("--epochs", "3"), remembers),
    "unlearn_class": (("--steps", "600"), forgets),
    "certified_digits": (("--epochs", "6"), proves),
    "noisy_mnist": (("--epochs", "1", "--train-size", "200"), reports_all),
    "prune_residual": (("--epochs", "4", "--train-size", "500", "--out", "pruned.pt"), is_smaller),
    "self_tuning": (("--epochs", "5"), follows),
    "cheaper_ode": (("--epochs", "1"), counts),
}


@pytest.mark.parametrize("name", QUICK)
def test_it_runs_and_says_what_it_reached(name: str, tmp_path: Path) -> None:
    arguments, check = QUICK[name]
    check(ran(name, tmp_path, *arguments).splitlines())


def test_the_table_is_drawn(tmp_path: Path) -> None:
    out = ran("calibrated_table", tmp_path, "--epochs", "3", "--out", "reliability.png")
    assert "expected calibration error" in out
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_takes_the_colours_of_another(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "red.png")
    Image.new("RGB", (30, 40), (20, 20, 220)).save(tmp_path / "blue.png")
    ran("colour_transfer", tmp_path, "red.png", "blue.png", "--colours", "1", "--out", "out.png")
    moved = Image.open(tmp_path / "out.png")
    assert moved.size == (40, 30)
    assert moved.getpixel((5, 5)) == (20, 20, 220)
