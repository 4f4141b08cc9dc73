"""Daubechies' wavelets: closed forms, what defines them, and a transform that loses nothing."""

from __future__ import annotations

import math

import pytest
import torch

from tikhon import TikhonError
from tikhon.math.wavelets import daubechies, inverse_wavelet2d, wavelet2d, wavelet_matrix


def test_the_first_two_are_known_in_closed_form() -> None:
    assert daubechies(1) == pytest.approx([math.sqrt(0.5)] * 2, abs=1e-15)
    third = math.sqrt(3.0)
    expected = [one / (4.0 * math.sqrt(2.0)) for one in (1 + third, 3 + third, 3 - third, 1 - third)]
    assert daubechies(2) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("order", range(1, 11))
def test_filters_are_orthonormal_with_vanishing_moments(order) -> None:
    low = torch.tensor(daubechies(order), dtype=torch.float64)
    for shift in range(order):
        product = float((low[: 2 * order - 2 * shift] * low[2 * shift :]).sum())
        assert product == pytest.approx(float(shift == 0), abs=1e-8)
    places = torch.arange(2 * order, dtype=torch.float64) / (2 * order)
    high = low.flip(0) * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(order)
    for moment in range(order):
        assert float((high * places**moment).sum()) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize(("shape", "levels", "order"), [((3, 32, 16), 4, 5), ((8, 8), 3, 5), ((2, 2), 1, 10)])
def test_nothing_is_lost(shape, levels, order) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coefficients = wavelet2d(x, levels, order)
    torch.testing.assert_close(inverse_wavelet2d(coefficients, levels, order), x, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(coefficients.square().sum(), x.square().sum())
    assert torch.equal(wavelet2d(x, 0, order), x)


def test_one_level_is_a_filter_and_every_other_value() -> None:
    x = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taps = daubechies(3)
    found = wavelet_matrix(12, 3, x) @ x
    for i in range(6):
        assert float(found[i]) == pytest.approx(sum(taps[k] * float(x[(2 * i + k) % 12]) for k in range(6)))


def test_smooth_images_are_few_coefficients() -> None:
    t = torch.linspace(0.0, 1.0, 32, dtype=torch.float64)
    image = t[:, None] ** 2 + 3.0 * t  # quadratic: no detail but where the border wraps around
    detail = (wavelet_matrix(32, 3, image) @ image)[16:]
    assert float(detail[:-3].abs().max()) < 1e-10
    turns = 2.0 * math.pi * torch.arange(32, dtype=torch.float64) / 32
    largest = (
        wavelet2d(torch.sin(turns)[:, None] * torch.cos(turns), 5, 3).square().flatten().sort(descending=True).values
    )
    assert float(largest[:64].sum() / largest.sum()) > 0.999


def test_wrong_input() -> None:
    for order in (0, 11, 2.0, True):
        with pytest.raises(TikhonError, match="order"):
            daubechies(order)
    for shape, levels in (((6, 8), 2), ((8, 8), 4), ((8, 8), -1)):
        with pytest.raises(TikhonError, match="levels"):
            wavelet2d(torch.zeros(shape), levels)
