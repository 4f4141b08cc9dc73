"""Evidence: the stored numbers of a study, what they say of its claim, and whether they are stale."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import torch

import tikhon
from tikhon.core.catalogue import Listing, find
from tikhon.core.errors import TikhonError
from tikhon.core.files import write_whole
from tikhon.math.statistics import mean_interval, paired_difference
from tikhon.studies.arms import source_hash
from tikhon.studies.cells import Event, Report, RunCells
from tikhon.studies.study import Expectation, Study, find_study, study_path
from tikhon.studies.workers import run_cells

Status = Literal["replayed", "partly", "not", "stale", "none"]
"""All expectations met, some, or none; `stale`: method or study changed since; `none`: nothing allows a verdict."""

Results = Mapping[tuple[str, int, int], Mapping[str, float]]
"""(arm, which candidate, seed) -> measures."""

_PACKAGE = Path(tikhon.__file__).parent
_CHECKOUT = _PACKAGE.parent.parent


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
    """Hash of the method's file; `study_source`: of its study's."""
    study_source: str
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
    return installed if installed.exists() else _CHECKOUT / "evidence"


def home() -> Path:
    """Where new evidence belongs: in a checkout the project's folder, otherwise `evidence` in the current one."""
    return bundled() if (_CHECKOUT / "pyproject.toml").exists() else Path("evidence")


def load_evidence(listing: Listing, directory: Path | None = None) -> Evidence | None:
    """The stored evidence of a method, or None. Its status is `stale` where the method or its study changed since."""
    path = (directory or bundled()) / listing.family / f"{listing.name}.json"
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        evidence = Evidence(**{**raw, "findings": [Finding(**one) for one in raw["findings"]]})
        if evidence.status not in get_args(Status) or evidence.method != listing.name:
            raise ValueError(f"{evidence.status} for {evidence.method}")
    except (ValueError, TypeError, KeyError) as error:
        raise TikhonError(
            f"{path} is not evidence that tikhon wrote: delete it and run `tikhon prove {listing.name}`."
        ) from error
    if (evidence.source, evidence.study_source) != _sources(listing):
        return replace(evidence, status="stale")
    return evidence


def _sources(listing: Listing) -> tuple[str, str]:
    study = study_path(listing.family, listing.name)
    return source_hash(listing.path), source_hash(study) if study.exists() else ""


def status_of(listing: Listing, directory: Path | None = None) -> Status:
    evidence = load_evidence(listing, directory)
    return "none" if evidence is None else evidence.status


def store_evidence(evidence: Evidence, listing: Listing, directory: Path) -> Path:
    """Write the file whole or not at all, and return where it is."""
    path = directory / listing.family / f"{listing.name}.json"
    write_whole(json.dumps(asdict(evidence), indent=1, allow_nan=False) + "\n", path)
    return path


def prove(
    name: str,
    *,
    jobs: int = 2,
    seeds: int | None = None,
    on_event: Callable[[Event], None] | None = None,
    engine: RunCells = run_cells,
) -> Evidence:
    """Run a method's study and judge it. seeds: fewer than the study's, for a quick look; engine: where it is run."""
    listing = find(name)
    study = find_study(listing.family, listing.name)
    if seeds is not None and seeds < 1:
        raise TikhonError(f"A study runs at least one seed, not {seeds}.")
    count = study.seeds if seeds is None else min(seeds, study.seeds)
    cells = [
        {"method": listing.name, "arm": arm, "candidate": number, "seed": seed}
        for arm, number, seed in study.trials()
        if seed < count
    ]
    seen: dict[tuple[str, int, int], Mapping[str, float]] = {}

    def keep(cell: Mapping[str, Any], result: Mapping[str, float]) -> None:
        seen[cell["arm"], cell["candidate"], cell["seed"]] = result

    engine(run_trial, cells, jobs=jobs, on_result=keep, on_event=on_event)
    return judge(listing, study, seen, count)


def run_trial(cell: dict[str, Any], report: Report) -> dict[str, float]:
    """One run of a study, in a worker."""
    listing = find(cell["method"])
    study = find_study(listing.family, listing.name)
    return dict(study.run(study.arms[cell["arm"]][cell["candidate"]], cell["seed"], report))


def judge(listing: Listing, study: Study, seen: Results, seeds: int) -> Evidence:
    """Choose each arm's candidate by validation, then hold the expectations against the paired differences."""
    chosen = {arm: _best(arm, len(candidates), seen, seeds) for arm, candidates in study.arms.items()}
    measures = {
        arm: {
            name: [float(seen[arm, number, seed][name]) for seed in range(seeds)]
            for name in seen[arm, number, 0]
            if all(math.isfinite(seen[arm, number, seed].get(name, math.nan)) for seed in range(seeds))
        }
        for arm, number in chosen.items()
    }
    findings = [_finding(one, measures) for one in study.expectations]
    source, study_source = _sources(listing)
    return Evidence(
        method=listing.name,
        question=study.question,
        setting=study.setting,
        status=_verdict(findings),
        source=source,
        study_source=study_source,
        seeds=list(range(seeds)),
        candidates=len(next(iter(study.arms.values()))),
        chosen={arm: dict(study.arms[arm][number]) for arm, number in chosen.items()},
        measures=measures,
        findings=findings,
        versions={"tikhon": tikhon.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _best(arm: str, candidates: int, seen: Results, seeds: int) -> int:
    """The candidate with the highest mean `validation`; one that diverged with any seed is out."""
    means: dict[int, float] = {}
    for number in range(candidates):
        values = [seen[arm, number, seed].get("validation") for seed in range(seeds)]
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if None in values:
            raise TikhonError(f"The runs of the arm {arm!r} have no measure 'validation' for the search to choose by.")
        if len(finite) == seeds:
            means[number] = fmean(finite)
    if not means:
        raise TikhonError(
            f"Every candidate of the arm {arm!r} diverged with some seed: give the study lower learning rates or "
            "strengths."
        )
    return max(means, key=means.__getitem__)


def _verdict(findings: Sequence[Finding]) -> Status:
    if any(one.low is None for one in findings):
        return "none"  # a single seed has no interval
    met = sum(one.met for one in findings)
    return "replayed" if met == len(findings) else "partly" if met else "not"


def _finding(expected: Expectation, measures: Mapping[str, Mapping[str, list[float]]]) -> Finding:
    for arm in (expected.arm, expected.than):
        if expected.measure not in measures[arm]:
            known = ", ".join(measures[arm])
            raise TikhonError(
                f"The study expects something of {expected.measure!r}, of which the arm {arm!r} has no finite value "
                f"for every seed. It has: {known}."
            )
    difference, low, high = paired_difference(
        measures[expected.arm][expected.measure], measures[expected.than][expected.measure]
    )
    if expected.direction == "higher":
        met = low is not None and _above(low, expected.margin)
    else:
        met = high is not None and _above(-high, expected.margin)
    return Finding(
        expected.arm, expected.than, expected.measure, expected.direction, expected.margin, difference, low, high, met
    )


def _above(bound: float, margin: float) -> bool:
    """Equal up to rounding is a tie, and a tie meets no expectation: without this, arms whose results are the same but
    for the order of additions, every seed with the same difference of 1e-17, would differ "significantly"."""
    return bound > margin and not math.isclose(bound, margin, rel_tol=1e-9, abs_tol=1e-12)
