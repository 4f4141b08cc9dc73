"""Evidence: the stored numbers of a study, what they say of its claim, and whether they are stale."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch

import tikhon
from tikhon.core.catalogue import Listing, find
from tikhon.core.errors import TikhonError
from tikhon.studies.arms import source_hash
from tikhon.studies.experiment import Report
from tikhon.studies.statistics import mean_interval, paired_difference
from tikhon.studies.study import Expectation, Study, find_study
from tikhon.studies.workers import Event, run_cells

Status = Literal["replayed", "partly", "not", "stale", "none"]
_PACKAGE = Path(tikhon.__file__).parent


@dataclass(frozen=True)
class Finding:
    """One expectation and what was seen: the paired difference arm - than with its 95% interval."""

    arm: str
    than: str
    measure: str
    direction: str
    margin: float
    difference: float
    low: float | None
    high: float | None
    met: bool


@dataclass(frozen=True)
class Evidence:
    """What a study found."""

    method: str
    question: str
    setting: str
    status: Status
    source: str
    seeds: list[int]
    candidates: int
    chosen: dict[str, dict[str, Any]]
    measures: dict[str, dict[str, list[float]]]
    """arm -> measure -> one value a seed, of the chosen candidate."""
    findings: list[Finding]
    versions: dict[str, str] = field(default_factory=dict)

    def mean(self, arm: str, measure: str) -> tuple[float, float | None, float | None]:
        return mean_interval(self.measures[arm][measure])


def bundled() -> Path:
    """Where the project's evidence is: in the installed package, or at the root of a checkout."""
    installed = _PACKAGE / "evidence"
    return installed if installed.exists() else _PACKAGE.parent.parent / "evidence"


def load_evidence(listing: Listing, directory: Path | None = None) -> Evidence | None:
    """The stored evidence of a method, or None. Its status is `stale` where the method's source has changed since."""
    path = (directory or bundled()) / listing.family / f"{listing.name}.json"
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["findings"] = [Finding(**one) for one in raw["findings"]]
        evidence = Evidence(**raw)
    except (ValueError, TypeError, KeyError) as error:
        raise TikhonError(f"{path} is not evidence that tikhon wrote: delete it and run `tikhon prove`.") from error
    if evidence.source != source_hash(listing):
        return Evidence(**{**raw, "status": "stale"})
    return evidence


def status_of(listing: Listing, directory: Path | None = None) -> Status:
    evidence = load_evidence(listing, directory)
    return "none" if evidence is None else evidence.status


def store_evidence(evidence: Evidence, listing: Listing, directory: Path) -> Path:
    """Write atomically; returns the file."""
    path = directory / listing.family / f"{listing.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(evidence), file, indent=1)
        file.write("\n")
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
    return path


def prove(
    name: str,
    *,
    jobs: int = 2,
    seeds: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Evidence:
    """Run a method's study and judge it. seeds: fewer than the study's, for a quick look."""
    listing = find(name)
    study = find_study(listing.family, listing.name)
    count = study.seeds if seeds is None else min(seeds, study.seeds)
    cells = [
        {"method": listing.name, "arm": arm, "candidate": number, "seed": seed}
        for arm, number, seed in study.trials()
        if seed < count
    ]
    seen: dict[tuple[str, int, int], Mapping[str, float]] = {}

    def keep(cell: Mapping[str, Any], result: Mapping[str, float]) -> None:
        seen[cell["arm"], cell["candidate"], cell["seed"]] = result

    run_cells(run_trial, cells, jobs=jobs, on_result=keep, on_event=on_event)
    return judge(listing, study, seen, count)


def run_trial(cell: dict[str, Any], report: Report) -> dict[str, float]:
    """One run of a study, in a worker."""
    listing = find(cell["method"])
    study = find_study(listing.family, listing.name)
    return dict(study.run(study.arms[cell["arm"]][cell["candidate"]], cell["seed"], report))


def judge(
    listing: Listing, study: Study, seen: Mapping[tuple[str, int, int], Mapping[str, float]], seeds: int
) -> Evidence:
    """Choose each arm's candidate by validation, then hold the expectations against the paired differences."""
    chosen: dict[str, int] = {}
    for arm, candidates in study.arms.items():
        validation = [
            fmean(seen[arm, number, seed]["validation"] for seed in range(seeds)) for number in range(len(candidates))
        ]
        chosen[arm] = max(range(len(candidates)), key=validation.__getitem__)
    measures = {
        arm: {
            measure: [float(seen[arm, number, seed][measure]) for seed in range(seeds)]
            for measure in seen[arm, number, 0]
        }
        for arm, number in chosen.items()
    }
    findings = [_finding(one, measures) for one in study.expectations]
    met = sum(finding.met for finding in findings)
    return Evidence(
        method=listing.name,
        question=study.question,
        setting=study.setting,
        status="replayed" if met == len(findings) else "partly" if met else "not",
        source=source_hash(listing),
        seeds=list(range(seeds)),
        candidates=len(next(iter(study.arms.values()))),
        chosen={arm: dict(study.arms[arm][number]) for arm, number in chosen.items()},
        measures=measures,
        findings=findings,
        versions={"tikhon": tikhon.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _finding(expected: Expectation, measures: Mapping[str, Mapping[str, list[float]]]) -> Finding:
    difference, low, high = paired_difference(
        measures[expected.arm][expected.measure], measures[expected.than][expected.measure]
    )
    if expected.direction == "higher":
        met = low is not None and low > expected.margin
    else:
        met = high is not None and high < -expected.margin
    return Finding(
        expected.arm, expected.than, expected.measure, expected.direction, expected.margin, difference, low, high, met
    )
