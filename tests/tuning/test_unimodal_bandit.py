"""Unimodal bandit search: noiseless peaks, budgets, errors that fall exponentially, axes, resuming, wrong input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tikhon import TikhonError, UnimodalBanditSearch
from tikhon.tuning.unimodal_bandit import kept, phases, probes


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64, 100])
def test_without_noise_it_finds_every_peak_as_golden_section_search_does(size) -> None:
    for peak in range(size):
        means = [-(abs(k - peak) ** 0.5) * (1.0 if k < peak else 0.3) for k in range(size)]
        found = UnimodalBanditSearch(size, budget=400).search(lambda k, means=means: means[k])
        assert found.index == peak
        assert found.mean == 0.0
        assert sum(found.pulls.values()) in (399, 400)
        assert len(found.pulls) <= max(1, 2 * phases(size))


@pytest.mark.parametrize("length", range(2, 70))
def test_whatever_is_kept_holds_the_peak_and_shrinks(length) -> None:
    for peak in range(length):
        low, high, count = 0, length - 1, 0
        while high > low:
            means = [-abs(place - peak) * (1.0 if place < peak else 0.1) for place in probes(low, high)]
            before = high - low
            low, high = kept(low, high, means)
            assert low <= peak <= high
            assert high - low < before
            count += 1
        assert count <= phases(length)


def errors(budget, trials=300):
    rng = np.random.default_rng(budget)
    missed = 0
    for trial in range(trials):
        peak = int(rng.integers(64))
        means = [-0.25 * abs(k - peak) for k in range(64)]
        noise = iter(rng.standard_normal(budget).tolist())
        search = UnimodalBanditSearch(64, budget, seed=trial)
        missed += search.search(lambda k, means=means, noise=noise: means[k] + next(noise)).index != peak
    return missed / trials


def test_the_error_falls_exponentially_in_the_budget() -> None:
    found = np.array([errors(budget) for budget in (200, 500, 800, 1100)])
    assert found[0] > 0.1
    falls = -np.diff(np.log(np.maximum(found, 1e-3)))
    assert (falls > 0.25).all()  # by the like factor for the like number of values
    equal = np.random.default_rng(0).standard_normal((300, 64)) / math.sqrt(1100 // 64) - 0.25 * np.abs(
        np.arange(64) - 30
    )
    assert found[-1] < 0.2 * (equal.argmax(axis=1) != 30).mean()


def test_phases_are_equal_and_all_values_are_spent() -> None:
    asked = []

    def pull(k):
        asked.append(k)
        return -abs(k - 20.2)

    UnimodalBanditSearch(64, budget=905).search(pull)
    assert len(asked) in (904, 905)
    assert [asked[:100].count(k) for k in (21, 42)] == [50, 50]
    assert all({asked[i], asked[i + 1]} == {21, 42} for i in range(0, 100, 2))  # in turn
    assert set(asked[-100:]) <= {19, 20, 21}
    assert max(asked, key=lambda k: asked.count(k)) == 20


def test_each_phase_asks_in_an_order_of_its_own_seed() -> None:
    def order(seed):
        asked = []
        UnimodalBanditSearch(16, budget=200, seed=seed).search(lambda k: asked.append(k) or -abs(k - 3.0))
        return asked

    assert order(0) == order(0)
    assert order(0) != order(1)
    # a drift that is as strong as the peak does not hide it
    for seed in range(10):
        clock = itertools.count()
        search = UnimodalBanditSearch(64, budget=4000, seed=seed)
        assert search.search(lambda k, clock=clock: -0.5 * abs(k - 30) + 0.002 * next(clock)).index in (29, 30, 31)


def test_axes_one_after_another_and_again_where_they_depend_on_each_other() -> None:
    def product(index):
        return math.exp(-((index[0] - 5) ** 2) / 50) * math.exp(-((index[1] - 11) ** 2) / 50)

    found = UnimodalBanditSearch((16, 12), budget=500).search(product)
    assert found.index == (5, 11)
    assert 497 <= sum(found.pulls.values()) <= 500

    def ridge(index):  # the best place along one axis depends on the other
        a, b = index[0] - 5, index[1] - 5
        return -(a**2) - b**2 - 1.2 * a * b

    once = UnimodalBanditSearch((16, 16), budget=4000).search(ridge).index
    often = UnimodalBanditSearch((16, 16), budget=4000, rounds=8).search(ridge).index
    assert ridge(often) > ridge(once)
    assert UnimodalBanditSearch((1, 3), budget=60).search(lambda index: float(index[1])).index == (0, 2)


def test_it_goes_on_where_it_was_broken_off() -> None:
    noise = np.random.default_rng(0).standard_normal(300).tolist()
    whole = UnimodalBanditSearch(32, budget=300, seed=3)
    values = iter(noise)
    expected = whole.search(lambda k: -0.3 * abs(k - 9) + next(values))

    values, calls = iter(noise), []

    def breaks(k):
        calls.append(k)
        if len(calls) == 101:
            raise KeyboardInterrupt
        return -0.3 * abs(k - 9) + next(values)

    half = UnimodalBanditSearch(32, budget=300, seed=3)
    with pytest.raises(KeyboardInterrupt):
        half.search(breaks)
    resumed = UnimodalBanditSearch(32, budget=300, seed=3)
    resumed.load_state_dict(half.state_dict())
    assert resumed.search(breaks) == expected
    assert len(calls) in (300, 301)  # the one that broke is asked for again
    assert resumed.search(breaks) == expected  # finished: nothing is asked for


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 100), {}, "shape must be"),
        (((), 100), {}, "shape must be"),
        (((4, 2.5), 100), {}, "shape must be"),
        ((64, 15), {}, "budget must be at least"),
        (((64, 64), 31), {}, "budget must be at least"),
        ((64, 400), {"rounds": 0}, "rounds must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, options, message) -> None:
    with pytest.raises(TikhonError, match=message):
        UnimodalBanditSearch(*arguments, **options)


def test_a_value_that_is_no_number_is_refused() -> None:
    search = UnimodalBanditSearch(8, budget=100)
    with pytest.raises(TikhonError, match="low finite one"):
        search.search(lambda k: math.nan)
    assert search.values == []
