"""The type stub of the package: methods are loaded when first used, and type checkers know them all the same."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import tikhon
from tikhon.core.catalogue import measures

ROOT = Path(__file__).parents[1]

USER = """
import tikhon as tk

recipe = tk.Recipe(tk.MixUp(alpha=0.4), tk.ELR(strength=tk.linear(0.0, 3.0)))
task: tk.data.Task = tk.data.load_task("digits", seed=0)
tk.MixUp(alpha="x")
tk.NoSuchMethod()
"""


def test_it_is_what_the_catalogue_gives() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "stubs.py"))
    stub = (ROOT / "src" / "tikhon" / "__init__.pyi").read_text(encoding="utf-8")
    assert stub == tool["stub"](), "run `make stubs`"
    for name in tikhon.__all__:
        assert f"import {name} as {name}\n" in stub
        assert hasattr(tikhon, name)


def test_what_measures_is_at_the_top_too() -> None:
    assert {"reliability", "sharpness", "EarlyStopping"} <= set(measures())
    for name, module in measures().items():
        assert getattr(tikhon, name) is getattr(importlib.import_module(module), name)


def test_mypy_knows_methods_and_their_arguments(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(tmp_path / "user.py")]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    # In the checkout, whose cache of types already knows torch where `make types` has run.
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line.partition("user.py:")[2] for line in done.stdout.splitlines()]
    assert [line.split(":")[0] for line in lines] == ["6", "7"], done.stdout + done.stderr
    assert 'Argument "alpha" to "MixUp" has incompatible type "str"' in lines[0]
    assert 'has no attribute "NoSuchMethod"' in lines[1]
