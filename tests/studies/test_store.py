"""The results database: exact, exclusive, and whole after any death."""

import itertools
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from tikhon.core.errors import TikhonError
from tikhon.studies.store import APPLICATION_ID, Store, canonical_json, cell_key

CELL = {"arm": "elr(strength=3.0)", "seed": 1, "task": {"data": "digits", "label_noise": 0.4}}
RESULT = {"metric": 0.9712, "calibration_error": None, "curves": {"train_loss": [2.3, 0.1]}}


def snapshot(path):
    return path.read_bytes(), path.stat().st_mtime_ns


def bits(value):
    """A value with every float spelt out exactly."""
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return float(value).hex() if isinstance(value, float) else value


def test_results_come_back_to_the_bit(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64).view(np.float64)
    floats = [*numbers[np.isfinite(numbers)].tolist(), 0.1 + 0.2, -0.0, 5e-324, sys.float_info.max, math.pi]
    result = {"floats": floats, "int": 2**70, "bool": True, "none": None, "text": 'ö "\0\ud800 ', "nested": [[1], {}]}
    with Store(tmp_path) as store:
        store.put(CELL, result)
        assert bits(store.get(CELL)) == bits(result)
    with Store(tmp_path) as store:
        assert bits(store.get(CELL)) == bits(result)


def test_a_cell_is_found_by_all_that_determines_it(tmp_path):
    with Store(tmp_path / "deep" / "er") as store:
        assert store.get(CELL) is None
        store.put(CELL, RESULT)
        assert store.get(dict(reversed(CELL.items()))) == RESULT  # the order of keys means nothing
        assert store.get({**CELL, "seed": 2}) is None
        assert store.get({**CELL, "task": {**CELL["task"], "label_noise": 0.2}}) is None
    assert cell_key({"b": [1, 2.0], "a": "x"}) != cell_key({"b": [1, 2.5], "a": "x"})
    assert canonical_json({"b": (1, 2.0), "a": "x"}) == '{"a":"x","b":[1,2.0]}'


def test_results_do_not_tell_who_finished_first(tmp_path):
    cells = [{"arm": arm, "seed": seed} for arm in ("none", "elr") for seed in range(3)]
    for name, order in (("one", cells), ("two", cells[::-1])):
        with Store(tmp_path / name) as store:
            for cell in order:
                store.put(cell, {"metric": cell["seed"] / 7})
    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        found = list(one.results())
        assert found == list(two.results())
        assert sorted(canonical_json(cell) for cell, _ in found) == sorted(canonical_json(cell) for cell in cells)
        assert all(result == {"metric": cell["seed"] / 7} for cell, result in found)


def test_putting_again_replaces(tmp_path):
    with Store(tmp_path) as store:
        store.put(CELL, RESULT)
        store.put(CELL, {"metric": 0.5})
        assert list(store.results()) == [(CELL, {"metric": 0.5})]
    with Store(tmp_path) as store:  # the checksum followed
        assert store.get(CELL) == {"metric": 0.5}


@pytest.mark.parametrize(
    ("result", "place"),
    [
        ({"curves": {"train_loss": [1.0, math.nan]}}, r"result\['curves'\]\['train_loss'\]\[1\] is nan"),
        ({"metric": math.inf}, "inf"),
        ({"metric": np.float32(0.5)}, "float32"),
        ({"metric": np.zeros(2)}, "ndarray"),
        ({1: 0.5}, "key 1"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_nothing_is_stored(tmp_path, result, place):
    with Store(tmp_path) as store:
        store.put(CELL, RESULT)
        with pytest.raises(TikhonError, match=place):
            store.put(CELL, result)
        assert store.get(CELL) == RESULT


# One process that forks writers and kills each at a random moment, because importing torch anew for each would take
# most of the time. Results of 40 pages make it likely that the moment lies within a transaction; it goes on until one
# has. A writer acknowledges what is stored only after `put` returned.
KILLED_WRITERS = """
import itertools, os, random, signal, sys, time
from pathlib import Path
from tikhon.studies.store import Store

moments, torn = random.Random(0), 0
for turn in itertools.count():
    if turn >= 400 or (turn >= 40 and torn > 0):
        break
    folder = Path(sys.argv[1], str(turn % 4))  # four directories, so that creation is interrupted too
    heard, told = os.pipe()
    writer = os.fork()
    if writer == 0:
        with Store(folder) as store:
            for i in itertools.count():
                store.put({"turn": turn, "i": i}, {"values": [turn + i / 7] * 8000})
                os.write(told, f"{turn} {i}\\n".encode())
    os.close(told)
    with os.fdopen(heard) as acknowledged:
        for _ in range(moments.randrange(4)):
            print(next(acknowledged), end="")
        time.sleep(0.02 * moments.random())
        os.kill(writer, signal.SIGKILL)
        assert os.waitpid(writer, 0)[1] == signal.SIGKILL, "the writer failed by itself"
        print(acknowledged.read(), end="")
    journal = folder / "results.db-journal"
    torn += journal.exists() and any(journal.read_bytes()[8:12])  # a count of pages to roll back, which is not zero
print("torn", torn)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_nothing_acknowledged_is_lost_by_sigkill(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED_WRITERS, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, torn = done.stdout.splitlines()
    acknowledged = {tuple(map(int, line.split())) for line in lines}
    assert len(acknowledged) > 40
    assert int(torn.split()[1]) > 0, "no kill fell within a transaction: the test shows nothing"
    stored = {}
    for folder in tmp_path.iterdir():
        with Store(folder) as store:
            stored.update({(cell["turn"], cell["i"]): result for cell, result in store.results()})
    assert acknowledged <= stored.keys()
    turns = max(turn for turn, _ in stored) + 1
    assert len(stored) <= len(acknowledged) + turns  # at most the one put that a kill cut off from its acknowledgement
    for (turn, i), result in stored.items():
        assert result == {"values": [turn + i / 7] * 8000}


HOLDER = """
import sys
from tikhon.studies.store import Store
with Store(sys.argv[1]):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(TikhonError, match=rf"another process \(id {holder.pid}\).*choose another --out"):
            Store(tmp_path)
        holder.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    with Store(tmp_path) as store:
        store.put(CELL, RESULT)


def test_two_stores_of_one_process_exclude_each_other_too(tmp_path):
    with Store(tmp_path), pytest.raises(TikhonError, match="another process"):
        Store(tmp_path)
    Store(tmp_path).close()


def database_with(tmp_path, results=30):
    with Store(tmp_path) as store:
        for seed in range(results):
            store.put({**CELL, "seed": seed}, {"curve": [seed / 3] * 200})
    return tmp_path / "results.db"


def refused_untouched(path, message=None):
    before = snapshot(path)
    with pytest.raises(TikhonError, match=message) as error:
        Store(path.parent)
    assert str(path) in str(error.value)
    assert "--out" in str(error.value)
    assert "delete" in str(error.value)
    assert snapshot(path) == before
    assert not path.with_name("results.db-journal").exists()


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0", b"\0" * 4096, b"seed,metric\n" * 99])
def test_foreign_files_are_refused_and_untouched(tmp_path, content):
    path = tmp_path / "results.db"
    path.write_bytes(content)
    refused_untouched(path, "is not a results database")
    assert [file.name for file in tmp_path.iterdir()] == ["results.db"]


def test_another_programs_database_is_refused_and_untouched(tmp_path):
    path = tmp_path / "results.db"
    database = sqlite3.connect(path)
    database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE results (key, cell, result, digest);")
    database.close()
    refused_untouched(path, "another program")


def test_a_newer_format_is_refused_and_untouched(tmp_path):
    path = database_with(tmp_path)
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()
    refused_untouched(path, "format 7")


def test_truncated_databases_are_refused_and_untouched(tmp_path):
    path = database_with(tmp_path)
    whole = path.read_bytes()
    for length in [0, 50, 99, 100, 500, 4095, 4096, 5000, 8192, len(whole) // 2, len(whole) - 4096, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused_untouched(path)
    path.write_bytes(whole)
    Store(tmp_path).close()


def test_a_flipped_bit_never_yields_a_wrong_number(tmp_path):
    path = database_with(tmp_path)
    whole = path.read_bytes()
    with Store(tmp_path) as store:
        truth = list(store.results())
    generator = np.random.default_rng(5)
    refused = 0
    for position in generator.integers(100, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        before = snapshot(path)
        try:
            with Store(tmp_path) as store:
                assert list(store.results()) == truth  # the bit lay in unused space
        except TikhonError:
            refused += 1
        assert snapshot(path) == before
    assert refused > 75


def test_a_flipped_digit_in_a_stored_number_is_noticed(tmp_path):
    path = database_with(tmp_path, results=1)
    path.write_bytes(path.read_bytes().replace(b'{"curve":[0.0,', b'{"curve":[0.1,'))
    refused_untouched(path, "checksum")


def test_missing_table_is_refused(tmp_path):
    path = tmp_path / "results.db"
    database = sqlite3.connect(path)
    database.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; CREATE TABLE t (a);")
    database.close()
    refused_untouched(path, "no such table")


def test_a_journal_left_by_a_deleted_database_does_not_spoil_the_new_one(tmp_path):
    path = database_with(tmp_path)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA cache_size = 1")
    database.execute("BEGIN IMMEDIATE")
    # Touches every page and spills out of the cache: the journal is hot, as after a kill.
    database.execute("UPDATE results SET key = hex(randomblob(9000)), result = hex(randomblob(9000))")
    journal = path.with_name("results.db-journal").read_bytes()
    database.execute("ROLLBACK")
    database.close()
    path.unlink()
    path.with_name("results.db-journal").write_bytes(journal)
    with Store(tmp_path) as store:
        assert list(store.results()) == []
        store.put(CELL, RESULT)
    with Store(tmp_path) as store:
        assert list(store.results()) == [(CELL, RESULT)]


@pytest.mark.skipif(os.name == "nt", reason="plain files and modes of Unix")
def test_an_out_that_cannot_be_a_directory_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        with pytest.raises(TikhonError, match="--out"):
            Store(out)
    assert file.read_text() == "mine"


def test_a_failed_opening_lets_go_of_the_directory(tmp_path):
    path = database_with(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192])
    refused_untouched(path)
    path.write_bytes(whole)
    with Store(tmp_path) as store:
        assert len(list(itertools.islice(store.results(), 99))) == 30


def test_stored_text_is_readable_by_any_sqlite(tmp_path):
    path = database_with(tmp_path, results=2)
    database = sqlite3.connect(path)
    rows = database.execute("SELECT cell, result FROM results ORDER BY cell").fetchall()
    database.close()
    assert [json.loads(cell)["seed"] for cell, _ in rows] == [0, 1]
