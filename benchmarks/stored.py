"""The stored rows: `results.json`, an array, one row a case and peer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Case
from tikhon.core.files import write_whole
from tikhon.studies.arms import source_hash

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


def file_of(case: Case) -> Path:
    """Where the case is written."""
    return Path(inspect.getfile(case.pair))


def source_of(case: Case) -> str:
    """A hash of the file that holds the case, for what it calls is there too: a row of another source is stale."""
    return source_hash(file_of(case))


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: (row["environment"], row["case"], row["peer"]))
    write_whole(json.dumps(ordered, indent=1, allow_nan=False) + "\n", path)
