"""The study of learned strengths: that its arms compete for the same, and that learning moves what it should."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tikhon.studies.tuning import learned as study


@pytest.mark.parametrize("name", study.PROBLEMS)
def test_the_grid_spans_the_ranges_that_the_others_have(name: str) -> None:
    problem = study.PROBLEMS[name]
    points = list(study.grid(problem))
    assert len(set(points)) == study.RUNS
    for place, (low, high) in enumerate(problem.ranges):
        values = sorted({point[place] for point in points})
        assert (values[0], values[-1]) == (low, pytest.approx(high))
        steps = [math.log(b / a) for a, b in pairwise(values)]
        assert steps == pytest.approx([steps[0]] * len(steps))
        assert low < study.middle(problem)[place] < high


def test_where_a_network_over_fits_learning_finds_more_decay() -> None:
    train = study.Trainer("diabetes", 100)
    start, tuned = study.unchanged(train), study.learned(train)
    assert tuned[0] > start[0] + 0.02
    assert train.seconds > 0.0
