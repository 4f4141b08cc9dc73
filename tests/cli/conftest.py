"""Stored evidence of ELR with numbers that were made up, so that nothing need be trained."""

from pathlib import Path

import pytest

from tikhon.core.catalogue import find
from tikhon.studies.evidence import Evidence, judge, store_evidence
from tikhon.studies.study import Expectation, Study

METRIC = {"none": [0.70, 0.72, 0.74], "elr": [0.90, 0.93, 0.93]}  # differences 0.20, 0.21, 0.19


def made_up() -> Evidence:
    study = Study(
        question="Does it keep what is right?",
        setting="a made-up task",
        run=lambda settings, seed, report: {},
        arms={"none": [{"recipe": "none"}], "elr": [{"recipe": "elr(strength=3.0)"}]},
        expectations=[Expectation("elr", "none"), Expectation("elr", "none", "gap", "lower")],
        seeds=3,
    )
    seen = {
        (arm, 0, seed): {"metric": value, "validation": value, "gap": 0.1 * seed, "seconds": 1.5 if arm == "elr" else 1}
        for arm, values in METRIC.items()
        for seed, value in enumerate(values)
    }
    return judge(find("elr"), study, seen, 3)


@pytest.fixture
def evidence_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store_evidence(made_up(), find("elr"), tmp_path)
    monkeypatch.setattr("tikhon.studies.evidence.bundled", lambda: tmp_path)
    return tmp_path
