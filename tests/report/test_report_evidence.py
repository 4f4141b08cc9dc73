"""The tables of evidence in README and docs."""

import json
from pathlib import Path

import pytest

from tikhon.core.catalogue import catalogue, find
from tikhon.core.errors import TikhonError
from tikhon.report.evidence import demo_table, evidence_table, summary_table, with_table
from tikhon.report.survey import survey_tables
from tikhon.studies.evidence import Evidence, Finding, bundled, store_evidence

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- evidence -->", "<!-- /evidence -->"


def test_readme_and_docs_show_what_is_stored() -> None:
    whole = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert with_table(whole, "evidence", evidence_table()) == whole, "run `make evidence`"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_table(text, "evidence", summary_table()) == text, "run `make evidence`"
    demo = json.loads((bundled() / "demo.json").read_text(encoding="utf-8"))
    assert with_table(text, "demo", demo_table(demo)) == text, "run `make evidence`"
    surveys = (ROOT / "docs" / "surveys.md").read_text(encoding="utf-8")
    assert with_table(surveys, "surveys", survey_tables()) == surveys, "run `make evidence`"


def test_rows_are_the_stored_numbers(tmp_path: Path) -> None:
    evidence = Evidence(
        method="elr",
        question="?",
        setting="digits | noise",
        status="partly",
        source="other",
        study_source="other",
        seeds=[0, 1],
        candidates=1,
        chosen={},
        measures={
            "none": {"metric": [0.7, 0.8], "bytes": [1000.0, 2000.0], "seconds": [2.0, 4.0]},
            "elr": {"metric": [0.9, 0.95], "bytes": [9000.0, 9000.0], "seconds": [6.0, 6.0]},
        },
        findings=[
            Finding("elr", "none", "metric", "higher", 0.05, 0.175, 0.1, 0.25, True),
            Finding("elr", "none", "bytes", "lower", -10.0, 7500.0, 7000.0, 8000.0, False),
        ],
    )
    store_evidence(evidence, find("elr"), tmp_path)
    assert summary_table(tmp_path).splitlines()[2:] == [
        "| ELR | noisy-labels, overfitting | metric higher by 0.05 than none | +0.175 [0.100, 0.250] | stale (1 of 2) "
        "| bytes at most 10 higher than none |"
    ]
    lines = evidence_table(tmp_path).splitlines()
    assert lines[2] == (
        "| ELR | Prevents the memorisation of false labels. | digits \\| noise | metric higher by 0.05 | none: 0.750 "
        "| elr: 0.925 | +0.175 [0.100, 0.250] | yes | 2.00x | stale |"
    )
    assert lines[3] == (
        "|  |  |  | bytes at most 10 higher | none: 1,500 | elr: 9,000 | +7,500 [7,000, 8,000] | no | 2.00x |  |"
    )
    others = [listing.class_name for listing in catalogue().values() if listing.name != "elr"]
    assert lines[4] == ""
    assert set(lines[5].removeprefix("Not yet proved: ").removesuffix(".").split(", ")) == set(others)


def test_only_what_lies_between_the_markers_changes() -> None:
    text = "before\n<!-- evidence -->\nold\n<!-- /evidence -->\nafter\n"
    assert with_table(text, "evidence", "new") == "before\n<!-- evidence -->\nnew\n<!-- /evidence -->\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, END + BEGIN, BEGIN + BEGIN + END])
def test_markers_must_be_there_once_and_in_order(text: str) -> None:
    with pytest.raises(TikhonError, match="markers"):
        with_table(text, "evidence", "new")
