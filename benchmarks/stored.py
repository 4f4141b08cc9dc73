"""The stored rows: `results.json`, an array, one row a case and peer."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Case
from tikhon.core.files import write_whole

RESULTS = Path(__file__).parent / "results.json"


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """All rows; none where nothing was measured yet."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def keep_row(path: Path, row: dict[str, Any]) -> None:
    """Store a row in the place of the one that this case had."""
    others = [one for one in read(path) if (one["case"], one["peer"]) != (row["case"], row["peer"])]
    _write(path, [*others, row])


def drop_others(path: Path, environment: str, cases: Sequence[Case]) -> None:
    """Forget the rows of an environment whose case is gone."""
    known = {(one.name, one.peer) for one in cases}
    rows = read(path)
    _write(path, [row for row in rows if row["environment"] != environment or (row["case"], row["peer"]) in known])


def source_of(case: Case) -> str:
    """A hash of what the case does: a stored row of another one is stale."""
    return hashlib.sha256(inspect.getsource(case.pair).encode()).hexdigest()[:16]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: (row["environment"], row["case"], row["peer"]))
    write_whole(json.dumps(ordered, indent=1, allow_nan=False) + "\n", path)
