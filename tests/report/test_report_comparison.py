"""The numbers for machines, and the words for people."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from sample_comparison import SEEDS, TASK, build

from tikhon.core.errors import TikhonError
from tikhon.report.comparison import Comparison, to_json
from tikhon.report.plots import looks
from tikhon.report.wording import columns, finding, settings

ARM_FIELDS = {
    "name",
    "mean",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "calibration_error",
    "gap",
    "relative_time",
    "relative_memory",
    "seeds",
}


def shifted(differences: dict[str, tuple[float, float, float]]) -> Comparison:
    """The sample with the given paired differences (mean, low, high), and means to match."""
    sample = build()
    arms = [sample.arms[0]]
    for arm in sample.arms[1:]:
        middle, low, high = differences.get(arm.name, (0.0, -0.01, 0.01))
        mean = sample.arms[0].mean + middle
        arms.append(replace(arm, mean=mean, difference=middle, difference_low=low, difference_high=high))
    return Comparison(TASK, arms)


def single_seed() -> Comparison:
    nothing = {"low": None, "high": None, "difference_low": None, "difference_high": None}
    return Comparison(TASK, [replace(arm, **nothing, seeds=arm.seeds[:1]) for arm in build().arms])


def test_json_has_exactly_the_documented_fields_as_fractions() -> None:
    sample = build()
    found = json.loads(json.dumps(to_json(sample), allow_nan=False))
    assert set(found) == {"task", "arms"}
    assert found["task"] == TASK
    assert [arm["name"] for arm in found["arms"]] == ["none", "early_stopping", "elr", "ps_kd", "mixup", "elr+mixup"]
    for arm in found["arms"]:
        assert set(arm) == ARM_FIELDS
        assert 0.7 < arm["low"] < arm["mean"] < arm["high"] < 1
        assert len(arm["seeds"]) == SEEDS
    assert found["arms"][0]["difference"] is None
    assert found["arms"][2]["difference"] == sample.arms[2].difference


def test_json_has_null_for_what_is_not_finite_and_plain_numbers_for_numpy() -> None:
    arm = replace(
        build().arms[0], mean=math.nan, gap=np.float32(0.25), seeds=[{"seed": np.int64(3), "metric": -math.inf}]
    )
    found = json.loads(json.dumps(to_json(Comparison({"shape": (8, 8)}, [arm])), allow_nan=False))
    assert found["task"] == {"shape": [8, 8]}
    assert found["arms"][0]["mean"] is None
    assert found["arms"][0]["gap"] == 0.25
    assert found["arms"][0]["seeds"] == [{"seed": 3, "metric": None}]


def test_arms_are_paired_by_seed_and_not_by_position() -> None:
    sample = build()
    plain = replace(sample.arms[0], seeds=[{"seed": 1, "metric": 0.5}, {"seed": 0, "metric": 0.25}])
    other = replace(sample.arms[1], seeds=[{"seed": seed, "metric": 0.75} for seed in (0, 1, 2)])
    assert Comparison({}, [plain, other]).paired(other) == [0.5, 0.25]
    assert Comparison({}, [other]).paired(other) == []


def test_no_arms_and_two_arms_of_one_name_are_refused() -> None:
    arm = build().arms[0]
    with pytest.raises(TikhonError, match="without arms"):
        Comparison({}, [])
    with pytest.raises(TikhonError, match="both called 'none'"):
        Comparison({}, [arm, arm])


def test_finding_names_the_largest_clear_gain() -> None:
    sentence = finding(shifted({"elr": (0.19, 0.17, 0.21), "mixup": (0.1, 0.08, 0.12), "ps_kd": (-0.04, -0.05, -0.03)}))
    assert sentence.startswith(
        "elr has the largest clear gain over none: +19.0 points, 95% interval 17.0 to 21.0, 5 seeds"
    )
    assert "2 of 5 arms are clearly better than none" in sentence
    assert "clearly worse: ps_kd" in sentence


def test_finding_does_not_crown_a_higher_mean_that_is_not_clear() -> None:
    sentence = finding(shifted({"elr": (0.02, 0.01, 0.03), "mixup": (0.1, -0.1, 0.3)}))
    assert sentence.startswith("elr has")
    assert "mixup has the highest mean, but its difference is not clear" in sentence


def test_finding_says_so_when_nothing_differs() -> None:
    sentence = finding(shifted({"elr": (0.02, -0.01, 0.05)}))
    assert sentence.startswith("No arm differs clearly from none")
    assert "highest: elr, +2.0 points, 95% interval -1.0 to 5.0" in sentence


def test_finding_says_so_when_arms_only_harm() -> None:
    sentence = finding(shifted({"mixup": (-0.03, -0.04, -0.02)}))
    assert sentence.startswith("No arm is clearly better than none; clearly worse: mixup (-3.0 points")


def test_finding_concludes_nothing_without_intervals_or_baseline() -> None:
    assert "without an interval" in finding(single_seed())
    sample = build()
    assert "without the arm none" in finding(Comparison(TASK, sample.arms[1:]))
    assert finding(Comparison(TASK, sample.arms[:1])) == "Only none ran: accuracy 78.2%, with nothing to compare it to."
    broken = [replace(arm, mean=math.nan) for arm in sample.arms]
    assert finding(Comparison(TASK, broken)).startswith("No arm ended with a finite metric")


def test_r_squared_is_a_number_with_three_decimals() -> None:
    sample = build({"metric": "r2"})
    arm = replace(sample.arms[2], mean=0.12345, difference=-0.00004, difference_low=-0.5, difference_high=0.25)
    comparison = Comparison({"metric": "r2"}, [sample.arms[0], arm])
    texts = [column.text(arm) for column in columns(comparison)]
    assert texts[0] == "0.123"
    assert texts[2] == "+0.000"
    assert texts[3] == "[-0.500, 0.250]"


def test_only_an_interval_that_excludes_zero_is_marked() -> None:
    for low, high, mark in ((0.01, 0.03, True), (-0.03, -0.01, True), (-0.01, 0.03, False), (0.0, 0.04, False)):
        arm = replace(build().arms[1], difference=0.02, difference_low=low, difference_high=high)
        shown = columns(Comparison(TASK, [build().arms[0], arm]))[2].text(arm)
        assert shown == ("+2.0*" if mark else "+2.0")


def test_columns_without_a_value_are_left_out() -> None:
    arms = [replace(arm, calibration_error=None, relative_memory=None) for arm in build().arms]
    headers = [column.header for column in columns(Comparison(TASK, arms))]
    assert "calibration error %" not in headers
    assert "memory" not in headers
    assert "time" in headers


def test_settings_read_as_words() -> None:
    comparison = Comparison({"label_noise": 0.4, "shift": None, "paired": True, "sizes": [1, 2]}, build().arms)
    assert settings(comparison) == [("label noise", "0.4"), ("paired", "yes"), ("sizes", "1, 2")]


def test_two_dozen_arms_look_different() -> None:
    arm = build().arms[0]
    comparison = Comparison({}, [arm, *(replace(arm, name=f"method{index}") for index in range(24))])
    assert len({(look.colour, look.dash) for look in looks(comparison).values()}) == 25
