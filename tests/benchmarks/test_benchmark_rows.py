"""What benchmarks/*.json hold is of the source that lies beside them, and the page is drawn from it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from benchmarks import scaling, stored
from benchmarks.harness import cases
from benchmarks.series import all_series
from tikhon.studies.arms import source_hash

ROOT = Path(__file__).parents[2]
FOLDERS = ("peers", "vision")
FILES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / "benchmarks" / folder).glob("[!_]*.py"))
    if any(isinstance(node, ast.Name) and node.id == "case" for node in ast.walk(ast.parse(path.read_text("utf-8"))))
]
KEYS = {"case", "peer", "peer_version", "ratio", "ratio_low", "ratio_high", "memory_ratio", "same_answer", "machine"}
AGAIN = "run `make bench` on a machine that does nothing else (ONLY=word for some)"


def tool():
    spec = importlib.util.spec_from_file_location("benchmark_table", ROOT / "tools" / "benchmark_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What is stored -------------------------------------------------------------------------------------------------------


def test_rows_have_what_a_reader_needs() -> None:
    rows = stored.read()
    assert rows, f"nothing is stored: {AGAIN}"
    lacking = [row.get("case") for row in rows if not set(row) >= {*KEYS, "environment", "source", "note"}]
    assert not lacking
    assert all(row["ratio_low"] <= row["ratio"] <= row["ratio_high"] for row in rows)
    assert len({(row["environment"], row["case"], row["peer"]) for row in rows}) == len(rows)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_of_cases_has_rows_of_its_source(path) -> None:
    """Where the file's peers are installed, every case of it; where they are not, at least one."""
    current = {
        (row["case"], row["peer"])
        for row in stored.read()
        if row["environment"] == path.parent.name and row["source"] == source_hash(path)
    }
    try:
        importlib.import_module(f"benchmarks.{path.parent.name}.{path.stem}")
    except ImportError:
        assert current, f"no row is of {path.parent.name}/{path.name} as it is: {AGAIN}"
    else:
        missing = {(one.name, one.peer) for one in cases() if stored.file_of(one) == path} - current
        assert not missing, f"{path.parent.name}/{path.name} is not measured as it is, {sorted(missing)}: {AGAIN}"


def test_no_row_is_of_the_past() -> None:
    current = {(path.parent.name, source_hash(path)) for path in FILES}
    stale = [row["case"] for row in stored.read() if (row["environment"], row["source"]) not in current]
    assert not stale, f"{'; '.join(stale)}: {AGAIN}"


def test_every_series_has_a_row_of_its_source() -> None:
    rows = {row["series"]: row["source"] for row in scaling.read()}
    stale = [one.name for one in all_series() if rows.get(one.name) != scaling.source_of(one)]
    assert not stale, f"{'; '.join(stale)}: {AGAIN}"
    assert len(rows) == len(all_series())


def test_the_page_and_the_readme_are_what_is_stored() -> None:
    drawing = tool()
    for path, drawn in ((drawing.PAGE, drawing.page), (drawing.README, drawing.front)):
        text = path.read_text(encoding="utf-8")
        assert text == drawn(text), f"{path.name} is not drawn: run `python tools/benchmark_table.py`"


# What is drawn of it --------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path) -> list[dict[str, object]]:
    """Two cases, as the command stores them."""
    for case, ratio, same in (("quick", 0.5, True), ("slow", 1.2, False)):
        row = {
            "case": case,
            "peer": "torch",
            "peer_version": "2.13.0",
            "ratio": ratio,
            "ratio_low": ratio - 0.1,
            "ratio_high": ratio + 0.1,
            "limit": 1.0,
            "memory_ratio": ratio,
            "same_answer": same,
            "note": f"a note on {case}",
            "machine": "a machine",
            "environment": "peers",
        }
        stored.keep_row(tmp_path / "results.json", row)
    return stored.read(tmp_path / "results.json")


def test_targets_are_computed_from_the_rows(results) -> None:
    drawing = tool()
    text = drawing.targets(results)
    assert "`compare` at most 5%: **not met**; slower in 1 of 2: slow (torch)." in text
    assert "in nine of ten rounds, in 1 of 2." in text
    assert "median case: **not met**; it is 0.85." in text
    assert "0.85 of the peer's in the median case, more than the peer's in 1 of 2." in text
    assert "Another answer than the peer's in 1 of 2: slow (torch)." in text
    assert drawing.targets(results[:1]).count("met; ") == 2
    assert "not met" not in drawing.targets(results[:1])


def test_a_case_is_held_to_its_own_limit(results) -> None:
    text = tool().targets([row | {"limit": 1.2} for row in results])
    assert "`compare` at most 5%: met; slower in 0 of 2." in text
    assert "in nine of ten rounds, in 0 of 2." in text


def test_every_case_has_a_line_the_slowest_first_and_marked(results) -> None:
    lines = tool().cases(results).splitlines()
    slow, quick = (next(place for place, line in enumerate(lines) if f"| {one} |" in line) for one in ("slow", "quick"))
    assert slow < quick
    assert lines[slow] == "| slow | torch 2.13.0 | **1.20 [1.10, 1.30]** | 1.20 | no | a note on slow |"
    assert "Measured on a machine." in lines


def test_the_readme_says_it_in_a_sentence(results) -> None:
    drawing = tool()
    assert "In 2 cases beside torch the median case takes 0.85 of the peer's time" in drawing.summary(results)
    assert drawing.summary([]) == drawing.cases([]) == drawing.growth([]) == drawing.NOTHING


def test_steps_are_a_row_a_recipe_and_a_column_a_model() -> None:
    plain = {"name": "none", "ratio": 1.031, "passes_ratio": 1.031}
    sam = {"name": "sam", "ratio": 2.2, "passes_ratio": None}
    rest = {"device": "cpu", "overhead_microseconds": 71.6, "machine": "a machine"}
    lines = tool().steps(
        [{"model": "mlp", "methods": [plain, sam], **rest}, {"model": "cnn", "methods": [plain, sam], **rest}]
    )
    assert (
        "- mlp, cpu: a step with a recipe of no methods takes a plain step and 72 microseconds (**not met**: 25)"
        in lines
    )
    assert "- cnn, cpu: a step with a recipe of no methods takes 1.03 of a plain step; more than 5% beyond" in lines
    assert "the declared passes are 0 of 1." in lines
    assert "| recipe | mlp, cpu | cnn, cpu |" in lines
    assert "| none | 1.03 (1.03) | 1.03 (1.03) |" in lines
    assert "| sam | 2.20 | 2.20 |" in lines
    assert tool().steps([]) == tool().NOTHING


def test_powers_are_fitted_to_the_upper_half_and_judged(tmp_path) -> None:
    sizes = (1, 10, 100, 1000)
    assert scaling._power(sizes, [5.0, 5.0, 100.0, 10_000.0]) == 2.0
    row = {
        "series": "squares",
        "axis": "samples",
        "sizes": list(sizes),
        "seconds": [5.0, 5.0, 100.0, 10_000.0],
        "exponent": 2.0,
        "exponent_expected": 1.0,
        "bytes": None,
        "note": "",
        "machine": "a machine",
    }
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps([row]), encoding="utf-8")
    drawn = tool().growth(scaling.read(path))
    assert "above the power of the mathematics: 1 of 1: squares." in drawn
    assert "| squares | 1 to 1,000 | 5 to 1e+04 | 2.00 (1) |  |  |" in drawn
    assert "0 of 1." in tool().growth([{**row, "exponent_expected": 2.0}])


def test_a_series_has_sizes_that_grow_and_calls_that_run() -> None:
    for one in all_series():
        assert list(one.sizes) == sorted(set(one.sizes))
        one.call(one.sizes[0])()
