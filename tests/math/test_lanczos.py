"""Lanczos against numpy's eigenvalues: whole spectra, repeated eigenvalues, error bounds, and shares of the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tikhon import TikhonError
from tikhon.math.lanczos import lanczos


def symmetric(size: int, seed: int = 0):
    one = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return one + one.T


def start(size: int, seed: int = 1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def found(matrix, steps, **options):
    return lanczos(lambda v: matrix @ v, start(len(matrix)), steps, **options)


def test_after_as_many_steps_as_dimensions_the_spectrum_is_that_of_numpy() -> None:
    matrix = symmetric(30)
    ritz = found(matrix, 100)
    expected = np.linalg.eigvalsh(matrix.numpy())[::-1]
    np.testing.assert_allclose(ritz.values, expected, atol=1e-10)
    vectors = torch.linalg.eigh(matrix).eigenvectors.flip(1)
    shares = (vectors.T @ start(30) / start(30).norm()).square()
    torch.testing.assert_close(ritz.weights, shares, rtol=1e-7, atol=1e-9)


def test_repeated_eigenvalues_are_found_as_often_as_they_are() -> None:
    diagonal = torch.tensor([5.0, 5.0, 5.0, 1.0, 1.0, 0.0, 0.0, 0.0]).double()
    rotation = torch.linalg.qr(symmetric(8))[0]
    ritz = found(rotation @ diagonal.diag() @ rotation.T, 8, count=3)
    torch.testing.assert_close(ritz.values, diagonal, atol=1e-10, rtol=0.0)
    assert ritz.weights.sum() == pytest.approx(1.0)
    assert torch.equal(found(torch.zeros(4, 4).double(), 4).values, torch.zeros(4).double())


def test_an_eigenvalue_lies_within_every_error() -> None:
    matrix = symmetric(60)
    exact = torch.linalg.eigvalsh(matrix)
    for steps in (1, 5, 15, 40):
        ritz = found(matrix, steps)
        nearest = (ritz.values[:, None] - exact).abs().amin(1)
        assert (nearest <= ritz.errors + 1e-10).all()
    assert ritz.errors[0] < 1e-6 < found(matrix, 5).errors[0]


def test_it_ends_when_the_largest_are_known() -> None:
    calls = []
    matrix = symmetric(80)

    def product(v):
        calls.append(v)
        return matrix @ v

    ritz = lanczos(product, start(80), 80, count=2, tolerance=1e-4)
    assert len(calls) == len(ritz.values) < 60
    torch.testing.assert_close(ritz.values[:2], torch.linalg.eigvalsh(matrix).flip(0)[:2], rtol=1e-4, atol=0.0)


def test_a_product_that_is_not_finite_is_refused() -> None:
    with pytest.raises(TikhonError, match="not finite"):
        found(torch.full((3, 3), torch.nan).double(), 3)
