"""The results database: every finished training run, stored at once, so that a killed comparison continues.

A *cell* is one training run, described by a JSON object of everything that determines its numbers. Its key is the hash
of the canonical form of that object, so a run whose method, data, seed or code changed is another cell.

SQLite keeps its rollback journal here rather than a write-ahead log: both survive SIGKILL at any moment, but this one
leaves a single file behind and also works on network file systems, and with one writer the log's concurrency buys
nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from tikhon.core.errors import TikhonError
from tikhon.studies.lock import DirectoryLock

APPLICATION_ID = int.from_bytes(b"tikh", "big")
SCHEMA_VERSION = 1

_SCHEMA = f"""
BEGIN;
CREATE TABLE results (key TEXT PRIMARY KEY, cell TEXT NOT NULL, result TEXT NOT NULL, digest TEXT NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


def canonical_json(value: Any, what: str = "value") -> str:
    """The one JSON text of a plain value: keys sorted, no spaces, floats in the shortest form that reads back equal.

    value: dicts with string keys, lists or tuples (read back as lists), strings, finite numbers, booleans and None.
    what: how messages name the value. Raises TikhonError naming the place of anything else, NaN and infinity included.
    """
    _check_plain(value, what)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def cell_key(cell: Mapping[str, Any]) -> str:
    """The identity of a cell: SHA-256 of its canonical JSON, 64 hexadecimal digits."""
    return _sha256(canonical_json(cell, "cell"))


class Store:
    """The results in `directory` (created if need be), held by this process alone until `close`.

    Raises TikhonError when another process holds the directory, and when `results.db` there is foreign, damaged or of
    another version; such a file is left as it was.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        folder = Path(directory)
        self.path = folder / "results.db"
        _refuse_foreign(self.path)
        with ExitStack() as resources:
            resources.callback(DirectoryLock(folder).release)
            if not self.path.exists():
                _create(self.path)
            self._database = resources.enter_context(closing(_open(self.path)))
            self._resources = resources.pop_all()

    def get(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored result of `cell`, equal to the bit to what was put, or None when there is none."""
        row = self._database.execute("SELECT result FROM results WHERE key = ?", (cell_key(cell),)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put(self, cell: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Store the result of `cell`, in place of an earlier one. It is on the disk when this returns.

        Raises TikhonError when `cell` or `result` is not plain JSON (NaN and infinity are not), or when the disk fails.
        """
        cell_text = canonical_json(cell, "cell")
        result_text = canonical_json(result, "result")
        key = _sha256(cell_text)
        try:
            self._database.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET result = excluded.result, digest = excluded.digest",
                (key, cell_text, result_text, _sha256(key + result_text)),
            )
        except sqlite3.Error as error:
            raise TikhonError(
                f"could not store a result in {self.path}: {error}. "
                "What was stored before is safe: make room, then run the same command again."
            ) from error

    def results(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every (cell, result), ordered by cell, so that the order does not tell which run finished first."""
        for cell, result in self._database.execute("SELECT cell, result FROM results ORDER BY cell").fetchall():
            yield json.loads(cell), json.loads(result)

    def close(self) -> None:
        """Let go of the directory. Closing twice is harmless."""
        self._resources.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_results(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every (cell, result) of a database, ordered by cell. It is opened for reading alone.

    Raises TikhonError where it is foreign, damaged or of another version, or where a process that was killed left it in
    the middle of a change.
    """
    reason = _foreign(path)
    if reason is None:
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                reason = _problem(database)
                if reason is None:
                    rows = database.execute("SELECT cell, result FROM results ORDER BY cell").fetchall()
                    return [(json.loads(cell), json.loads(result)) for cell, result in rows]
        except sqlite3.Error as error:
            reason = f"cannot be read ({error})"
    raise TikhonError(f"{path} {reason}.")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        if not isinstance(value, dict):
            raise TikhonError(f"{where} is a {type(value).__name__}; the results database stores plain dicts only.")
        for key, item in value.items():
            if not isinstance(key, str):
                raise TikhonError(f"{where} has the key {key!r}; the results database stores string keys only.")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TikhonError(f"{where} is {value}; the results database stores finite numbers only (or None).")
    elif value is not None and not isinstance(value, (str, int)):
        raise TikhonError(
            f"{where} is a {type(value).__name__}; the results database stores numbers, strings, lists and dicts only. "
            "Convert it first, for example with float() or .tolist()."
        )


def _refused(path: Path, reason: str) -> TikhonError:
    return TikhonError(f"{path} {reason}. It was left as it is: choose another --out, or delete the file.")


def _refuse_foreign(path: Path) -> None:
    if path.exists() and (reason := _foreign(path)) is not None:
        raise _refused(path, reason)


def _foreign(path: Path) -> str | None:
    """Why a file is none of ours. Read by hand: SQLite may write while it opens a file, which a foreign one must not
    suffer."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        return f"cannot be read ({error})"
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        return "is not a results database, or was cut short"
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        return "is an SQLite database of another program"
    return None


def _create(path: Path) -> None:
    """Build an empty database beside its place and move it there whole: a half-made one is never seen."""
    draft = path.with_name("results.db.new")
    try:
        # A journal left by a database that the user deleted would be rolled back into the new one.
        for leftover in (draft, draft.with_name(draft.name + "-journal"), path.with_name(path.name + "-journal")):
            leftover.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft, isolation_level=None)) as database:
            database.executescript(_SCHEMA)
        draft.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise TikhonError(f"cannot create {path}: {error}. Choose another --out.") from error


def _open(path: Path) -> sqlite3.Connection:
    """Open a database whose header is ours, undo what a killed process left half-written, and check every row."""
    with ExitStack() as resources:
        try:
            database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
            resources.callback(database.close)
            database.execute("PRAGMA synchronous = FULL")
            problem = _problem(database)
            if problem is None:
                # Find out now, not after the first hour of training, whether the file can be written.
                database.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
        except sqlite3.Error as error:
            problem = f"cannot be used as a results database ({error})"
        if problem is not None:
            raise _refused(path, problem)
        resources.pop_all()
        return database


def _problem(database: sqlite3.Connection) -> str | None:
    """What is wrong with an opened database, or None."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        return f"has the format {version}, and this version of tikhon reads the format {SCHEMA_VERSION}"
    (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        return f"is damaged ({verdict})"
    # SQLite checks its own structure only: a digit that flipped inside a row shows in our digests alone.
    for key, cell, result, digest in database.execute("SELECT key, cell, result, digest FROM results"):
        if key != _sha256(cell) or digest != _sha256(key + result):
            return "is damaged (a stored result does not match its checksum)"
    return None
