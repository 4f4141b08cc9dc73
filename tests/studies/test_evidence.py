"""Judging a study, and storing and reading what was found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tikhon.core.catalogue import find
from tikhon.core.errors import TikhonError
from tikhon.studies.evidence import Evidence, judge, load_evidence, status_of, store_evidence
from tikhon.studies.study import Expectation, Study, training

ELR = find("elr")


def nothing(settings: Any, seed: int, report: Any) -> dict[str, float]:
    return {}


def judged(
    metric: dict[str, list[float]], *expectations: Expectation, validation: dict[str, float] | None = None
) -> Evidence:
    """A study of one candidate an arm with these metrics by seed."""
    study = Study("?", {arm: [{}] for arm in metric}, nothing, expectations)
    seen = {
        (arm, 0, seed): {"metric": value, "validation": (validation or {}).get(arm, 0.5)}
        for arm, values in metric.items()
        for seed, value in enumerate(values)
    }
    return judge(ELR, study, seen, len(next(iter(metric.values()))))


PLAIN = [0.70, 0.75, 0.80]


@pytest.mark.parametrize(
    ("other", "expectation", "met"),
    [
        ([0.80, 0.86, 0.89], Expectation("b", "a"), True),
        (
            [0.80, 0.86, 0.89],
            Expectation("b", "a", margin=0.07),
            True,
        ),  # 0.1 - 4.303 * 0.01 / sqrt(3) = 0.0752
        ([0.80, 0.86, 0.89], Expectation("b", "a", margin=0.08), False),
        ([0.80, 0.86, 0.89], Expectation("b", "a", direction="lower"), False),
        ([0.60, 0.66, 0.69], Expectation("b", "a", direction="lower"), True),
        ([0.60, 0.66, 0.69], Expectation("b", "a", direction="lower", margin=0.08), False),
        ([0.70, 0.70, 0.90], Expectation("b", "a"), False),
        ([0.69, 0.74, 0.79], Expectation("b", "a", margin=-0.02), True),  # no worse than by 0.02
        ([0.67, 0.72, 0.77], Expectation("b", "a", margin=-0.02), False),
        ([0.71, 0.76, 0.81], Expectation("b", "a", direction="lower", margin=-0.02), True),
    ],
)
def test_an_expectation_is_met_by_the_end_of_the_interval(
    other: list[float], expectation: Expectation, met: bool
) -> None:
    evidence = judged({"a": PLAIN, "b": other}, expectation)
    assert evidence.findings[0].met is met
    assert evidence.status == ("replayed" if met else "not")


@pytest.mark.parametrize("rounding", [0.0, 1e-16, -1e-16])
@pytest.mark.parametrize(("margin", "shift"), [(0.0, 0.0), (0.1, 0.1), (-0.1, -0.1)])
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_constant_difference_that_equals_the_margin_is_a_tie(
    direction: Any, margin: float, shift: float, rounding: float
) -> None:
    sign = 1 if direction == "higher" else -1
    other = [value + sign * shift + rounding for value in PLAIN]
    assert not judged({"a": PLAIN, "b": other}, Expectation("b", "a", "metric", direction, margin)).findings[0].met


def test_a_constant_difference_beyond_the_margin_is_none() -> None:
    evidence = judged({"a": PLAIN, "b": [value + 0.01 for value in PLAIN]}, Expectation("b", "a"))
    assert evidence.findings[0].met
    assert evidence.findings[0].low == pytest.approx(0.01)


def test_status_counts_the_expectations_met() -> None:
    arms = {"a": PLAIN, "b": [0.80, 0.86, 0.89]}
    assert judged(arms, Expectation("b", "a"), Expectation("a", "b")).status == "partly"
    assert judged(arms, Expectation("a", "b")).status == "not"


def test_one_seed_gives_no_verdict() -> None:
    evidence = judged({"a": [0.7], "b": [0.9]}, Expectation("b", "a"))
    assert (evidence.status, evidence.findings[0].low) == ("none", None)


def candidates(results: dict[int, list[dict[str, float]]]) -> Evidence:
    """A study whose arm `b` has several candidates; results: candidate -> measures by seed."""
    settings = [{"n": number} for number in results]
    study = Study("?", {"a": settings, "b": settings}, nothing, [Expectation("b", "a")])
    seen = {("a", number, seed): {"metric": 0.5, "validation": 0.5} for number in results for seed in range(2)}
    seen |= {("b", number, seed): one for number, many in results.items() for seed, one in enumerate(many)}
    return judge(ELR, study, seen, 2)


def test_validation_chooses_and_not_the_test_split() -> None:
    evidence = candidates(
        {
            0: [{"metric": 0.9, "validation": 0.6}, {"metric": 0.9, "validation": 0.6}],
            1: [{"metric": 0.7, "validation": 0.5}, {"metric": 0.8, "validation": 0.8}],
        }
    )
    assert evidence.chosen["b"] == {"n": 1}
    assert evidence.measures["b"]["metric"] == [0.7, 0.8]
    assert evidence.chosen["a"] == {"n": 0}, "the first of equals"


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_a_candidate_that_diverged_with_any_seed_is_out(worst: float) -> None:
    evidence = candidates(
        {
            0: [{"validation": worst}, {"metric": 0.9, "validation": 0.9}],
            1: [{"metric": 0.7, "validation": 0.5}, {"metric": 0.8, "validation": 0.5}],
        }
    )
    assert evidence.chosen["b"] == {"n": 1}


def test_an_arm_of_which_nothing_is_left_is_named() -> None:
    with pytest.raises(TikhonError, match=r"Every candidate of the arm 'b' diverged"):
        candidates({0: [{"validation": math.nan}] * 2})


def test_missing_measures_are_named() -> None:
    with pytest.raises(TikhonError, match=r"'b' have no measure 'validation'"):
        candidates({0: [{"metric": 0.7}] * 2})
    with pytest.raises(TikhonError, match=r"'metric', of which the arm 'b' has no finite value .* It has: validation"):
        candidates({0: [{"validation": 0.7}, {"validation": 0.7, "metric": 0.5}]})
    with pytest.raises(TikhonError, match=r"'metric', of which the arm 'b' has no finite value"):
        candidates({0: [{"validation": 0.7, "metric": math.nan}] * 2})


@pytest.mark.parametrize(
    ("arms", "expectations", "seeds", "part"),
    [
        ({"a": [{}], "b": [{}]}, [], 5, "expects nothing"),
        ({"a": [{}], "b": [{}, {}]}, [Expectation("b", "a")], 5, "same number of candidates"),
        ({"a": [], "b": []}, [Expectation("b", "a")], 5, "same number of candidates"),
        ({"a": [{}], "b": [{}]}, [Expectation("b", "c")], 5, "lacks: c"),
        ({"a": [{}], "b": [{}]}, [Expectation("b", "a")], 1, "two seeds"),
    ],
)
def test_studies_that_could_show_nothing_are_refused(arms: Any, expectations: Any, seeds: int, part: str) -> None:
    with pytest.raises(TikhonError, match=part):
        Study("?", arms, nothing, expectations, seeds)


def test_expectations_that_could_show_nothing_are_refused() -> None:
    with pytest.raises(TikhonError, match="with itself"):
        Expectation("a", "a")
    with pytest.raises(TikhonError, match="finite margin"):
        Expectation("a", "b", margin=math.nan)
    with pytest.raises(TikhonError, match="'higher' or 'lower'"):
        Expectation("a", "b", direction="up")  # type: ignore[arg-type]


def test_training_that_diverges_loses_the_search() -> None:
    run = training(task={"source": "digits", "train_size": 100}, epochs=2)
    result = run({"recipe": "none", "learning_rate": 1e30}, 0, lambda fraction: None)
    assert list(result) == ["validation"]
    assert math.isnan(result["validation"])


def test_training_measures() -> None:
    run = training(task={"source": "digits", "train_size": 100}, epochs=1)
    result = run({"recipe": "none"}, 0, lambda fraction: None)
    assert set(result) == {"metric", "train", "validation", "gap", "calibration_error", "seconds", "peak_memory"}


@pytest.fixture
def evidence() -> Evidence:
    return judged({"a": PLAIN, "b": [0.80, 0.86, 0.89]}, Expectation("b", "a"))


def test_what_is_stored_is_what_is_read(evidence: Evidence, tmp_path: Path) -> None:
    assert status_of(ELR, tmp_path) == "none"
    path = store_evidence(evidence, ELR, tmp_path)
    assert load_evidence(ELR, tmp_path) == evidence
    assert [one.name for one in path.parent.iterdir()] == ["elr.json"], "no unfinished file stays behind"


@pytest.mark.parametrize("source", ["source", "study_source"])
def test_another_source_makes_evidence_stale(evidence: Evidence, tmp_path: Path, source: str) -> None:
    path = store_evidence(evidence, ELR, tmp_path)
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {source: "0123456789abcdef"}))
    assert status_of(ELR, tmp_path) == "stale"


@pytest.mark.parametrize("change", [{"status": "good"}, {"method": "mixup"}, {"more": 1}, {"findings": [1]}])
def test_foreign_evidence_is_refused(evidence: Evidence, tmp_path: Path, change: dict[str, Any]) -> None:
    path = store_evidence(evidence, ELR, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TikhonError, match="not evidence that tikhon wrote"):
        load_evidence(ELR, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(evidence: Evidence, tmp_path: Path) -> None:
    (tmp_path / "targets").write_text("a file where a folder should be")
    with pytest.raises(TikhonError, match="cannot be written"):
        store_evidence(evidence, ELR, tmp_path)
