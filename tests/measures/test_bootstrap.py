"""The bootstrap: against scipy, against the t interval, and how often it covers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from tikhon import TikhonError
from tikhon.math.statistics import mean_interval
from tikhon.measures.bootstrap import bootstrap_interval
from tikhon.measures.calibration import expected_calibration_error


def test_it_is_scipys_basic_interval_up_to_the_draws() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    expected = scipy.stats.bootstrap((values,), np.median, n_resamples=4000, method="basic", rng=0).confidence_interval
    value, low, high = bootstrap_interval(lambda x: x.quantile(0.5), torch.from_numpy(values), resamples=4000)
    assert value == pytest.approx(np.median(values))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_of_a_mean_it_is_about_the_t_interval() -> None:
    values = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert bootstrap_interval(torch.mean, values) == pytest.approx(mean_interval(values), abs=0.015)


def test_rows_stay_together() -> None:
    x = torch.arange(50.0)
    assert bootstrap_interval(lambda a, b: (a - b).abs().sum(), x, x.clone()) == (0.0, 0.0, 0.0)


def test_the_seed_decides_and_global_generators_do_not() -> None:
    x = torch.rand(40, generator=torch.Generator().manual_seed(3))
    state = torch.get_rng_state()
    first = bootstrap_interval(torch.mean, x, resamples=50)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert bootstrap_interval(torch.mean, x, resamples=50) == first
    assert bootstrap_interval(torch.mean, x, resamples=50, seed=1) != first


def test_what_is_biased_is_moved_back() -> None:
    """Overconfident by a quarter: 60 samples in 15 bins read more than that; the interval is around the truth."""
    found = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        confidence = generator.uniform(0.5, 1, 60)
        y = torch.from_numpy(generator.integers(0, 2, 60))
        p = torch.from_numpy(np.stack([confidence, 1 - confidence], 1))
        found.append(bootstrap_interval(expected_calibration_error, p, y, resamples=150))
    value, low, high = torch.tensor(found).T
    assert value.mean() > 0.27
    assert ((low + high) / 2).mean() < value.mean() - 0.01
    assert ((low <= 0.25) & (high >= 0.25)).double().mean() > 0.85


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"as many rows each, at least 1, not \[2, 3\]"):
        bootstrap_interval(torch.mean, torch.ones(2), torch.ones(3))
    with pytest.raises(TikhonError, match="rows"):
        bootstrap_interval(torch.mean)
    with pytest.raises(TikhonError, match="level within"):
        bootstrap_interval(torch.mean, torch.ones(2), level=95)
