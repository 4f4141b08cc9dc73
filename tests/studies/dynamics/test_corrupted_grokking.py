"""Grokking with wrong labels: the participation ratio by numpy and in closed form, and the study in its quick form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tikhon import TikhonError
from tikhon.studies.dynamics.corrupted_grokking import (
    MODULUS,
    inverse_participation_ratio,
    neuron_participation,
    run,
)
from tikhon.studies.grokking import tables


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
def test_it_is_the_sum_over_numpys_fourier_transform(power: float) -> None:
    weights = torch.randn(6, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = np.abs(np.fft.fft(weights.numpy()))
    expected = [sum((one / np.linalg.norm(row)) ** (2 * power) for one in row) for row in spectrum]
    np.testing.assert_allclose(inverse_participation_ratio(weights, power), expected, rtol=1e-12)


def test_cosines_constants_and_noise() -> None:
    place = torch.arange(31, dtype=torch.float64)
    for frequency in range(1, 16):
        cosine = torch.cos(2 * torch.pi * (frequency * place / 31 + 0.3))
        assert inverse_participation_ratio(7.0 * cosine).item() == pytest.approx(0.5)
    assert inverse_participation_ratio(torch.ones(31)).item() == pytest.approx(1.0)
    assert inverse_participation_ratio(torch.zeros(31)).item() == 0.0
    noise = torch.randn(4000, 31, generator=torch.Generator().manual_seed(0))
    assert inverse_participation_ratio(noise).mean().item() == pytest.approx(2 / 31, rel=0.05)


def test_a_network_that_knows_the_rule_has_neurons_of_a_half() -> None:
    """The paper's analytic solution: a phase for each neuron, whose sum over the two inputs the output reads off."""
    generator = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.randint(1, 16, (400, 1), generator=generator) * torch.arange(MODULUS) / MODULUS
    one, other = 2 * torch.pi * torch.rand(2, 400, 1, generator=generator)
    first = torch.cat([torch.cos(angle + one), torch.cos(angle + other)], dim=1)
    last = torch.cos(angle + one + other).T
    torch.testing.assert_close(neuron_participation(first, last), torch.full((400,), 0.5))
    inputs, target = tables(0, MODULUS)[0]
    assert ((inputs @ first.T).square() @ last.T).argmax(1).eq(target).double().mean() > 0.95
    last[:, ::2] = torch.randn(MODULUS, 200, generator=generator)
    assert neuron_participation(first, last).argsort()[:200].remainder(2).sum() == 0


def test_a_power_of_one_is_refused() -> None:
    with pytest.raises(TikhonError, match="above 1, not 1"):
        inverse_participation_ratio(torch.ones(3), 1.0)


def test_quick_form() -> None:
    def measures(**settings: object) -> dict[str, float]:
        return run({"steps": 150, **settings}, 100, lambda share: None)

    plain, pruned, by_lot = measures(), measures(prune=0.5), measures(prune=0.5, by_lot=True)
    assert plain["wrong"] > 0.9
    assert pruned["wrong"] < plain["wrong"]
    assert pruned["metric"] > by_lot["metric"]
    assert pruned["participation"] > plain["participation"]
    assert measures(recipe="l2(strength=7e-5)")["wrong"] < plain["wrong"]
