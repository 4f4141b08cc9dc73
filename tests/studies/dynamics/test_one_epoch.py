"""One epoch: when a curve reaches a level, the source's own statistics, and the study in its quick form."""

from __future__ import annotations

import math

import pytest
import torch

from tikhon import TikhonError
from tikhon.studies.dynamics.one_epoch import ORDER, SYMBOLS, _Source, run, steps_to_reach

STEPS = torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)


def test_between_two_points_the_curve_is_straight_in_the_logarithm() -> None:
    loss = torch.tensor([4.0, 3.0, 1.0, 2.0], dtype=torch.float64)
    for level, expected in ((5.0, 1.0), (4.0, 1.0), (3.5, math.sqrt(10.0)), (2.0, 10.0 * math.sqrt(10.0)), (1.0, 100)):
        assert steps_to_reach(STEPS, loss, torch.tensor(level)).item() == pytest.approx(expected)


def test_the_first_time_counts_and_never_is_infinite() -> None:
    loss = torch.tensor([4.0, 1.0, 3.0, 1.0], dtype=torch.float64)
    levels = torch.tensor([[1.0, 0.9], [4.5, 2.5]], dtype=torch.float64)
    expected = torch.tensor([[10.0, math.inf], [1.0, math.sqrt(10.0)]], dtype=torch.float64)
    torch.testing.assert_close(steps_to_reach(STEPS, loss, levels), expected)


def test_a_power_law_in_fewer_steps_is_that_much_faster() -> None:
    steps = torch.logspace(0, 4, 200, dtype=torch.float64)
    slow, fast = steps**-0.5, (2.5 * steps) ** -0.5
    level = torch.tensor(0.02, dtype=torch.float64)
    ratio = steps_to_reach(steps, slow, level) / steps_to_reach(steps, fast, level)
    assert ratio.item() == pytest.approx(2.5, rel=1e-3)


def test_curves_that_do_not_fit_their_steps_are_refused() -> None:
    with pytest.raises(TikhonError, match=r"\(4,\) and \(3,\)"):
        steps_to_reach(STEPS, STEPS[:3], STEPS[0])


def test_the_source_draws_what_it_says() -> None:
    contexts, following, distributions = _Source(100).transitions(20_000)
    torch.testing.assert_close(contexts[64:, :-1], contexts[:-64, 1:])  # 64 streams side by side
    torch.testing.assert_close(contexts[64:, -1], following[:-64])
    assert contexts.shape == (20_000, ORDER)
    surprise = -distributions.gather(1, following[:, None])[:, 0].log()
    entropy = -torch.xlogy(distributions, distributions).sum(1)
    standard_error = (surprise - entropy).std() / 20_000**0.5
    assert (surprise - entropy).mean().abs() < 4 * standard_error
    assert 0.2 * math.log(SYMBOLS) < entropy.mean() < 0.8 * math.log(SYMBOLS)


def test_quick_form() -> None:
    def measures(epochs: int) -> dict[str, float]:
        settings = {"epochs": epochs, "dropout": 0.0, "learning_rate": 3e-3, "steps": 150}
        return run(settings, 100, lambda share: None)

    one, ten = measures(1), measures(10)
    assert ten["speedup"] == 1.0
    assert one["loss"] < ten["loss"]
    assert one["speedup"] > 1.0
    assert one == measures(1)
