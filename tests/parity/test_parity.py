"""Parity with official implementations: every case of each NAME.*.npz goes through `check` of NAME.py.

Another folder of cases is run by naming it: TIKHON_GOLDEN=FOLDER make parity. A file whose entry has no module here is
not implemented: it is skipped, and listed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("TIKHON_GOLDEN") or HERE / "data")

Case = Mapping[str, np.ndarray]


@cache
def load(path: Path) -> Mapping[int, Case]:
    """The cases of a file by index, each with its arrays by name."""
    cases: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            case, _, name = key.partition("/")
            cases.setdefault(int(case.removeprefix("case")), {})[name] = arrays[key]
    assert cases, f"{path} holds no case"
    return cases


def module_of(path: Path) -> Path:
    return HERE / f"{path.name.partition('.')[0]}.py"


def checker(module: Path) -> Callable[[Case], None]:
    """`check` of an entry's module, loaded by its path: the name of an entry may be that of an installed package."""
    specification = importlib.util.spec_from_file_location(f"parity_{module.stem}", module)
    assert specification is not None
    assert specification.loader is not None
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    check: Callable[[Case], None] = loaded.check
    return check


def cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.npz")):
        if module_of(path).exists():
            for index in sorted(load(path)):
                yield pytest.param(path, index, id=f"{path.stem}-case{index}")
        else:
            yield pytest.param(path, 0, id=path.stem, marks=pytest.mark.skip(reason=f"{path.name}: not implemented"))


def test_the_folder_holds_cases() -> None:
    found = [path for path in FOLDER.glob("*.npz") if module_of(path).exists()]
    assert found, f"{FOLDER} holds no NAME.*.npz of an implemented entry"


@pytest.mark.parametrize(("path", "index"), list(cases()))
def test_parity(path: Path, index: int) -> None:
    checker(module_of(path))(load(path)[index])
