"""Leading singular values against the whole decomposition: hard spectra, both shapes, and the randomised way."""

from __future__ import annotations

import pytest
import torch

from tikhon.math.singular import leading_singular

SPECTRA = {
    "falling": 0.8 ** torch.arange(80.0),
    "repeated": torch.cat([torch.ones(20), 0.5 * torch.ones(60)]),
    "small beside the first": torch.cat([torch.ones(3), 1e-3 * torch.linspace(1.0, 0.5, 77)]),
    "of low rank": torch.cat([torch.ones(3), torch.zeros(77)]),
    "flat": torch.linspace(1.0, 0.9, 80),
}


def matrix_of(singular, shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(side, 80, dtype=torch.float64, generator=generator)).Q for side in shape)
    return ((u * singular.double()) @ v.T).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(80, 80), (80, 130), (130, 80)])
@pytest.mark.parametrize("rank", [6, 78])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_exact_one_is_the_whole_decomposition_cut(name, rank, shape, dtype) -> None:
    matrix = matrix_of(SPECTRA[name], shape, dtype)
    u, s, v = leading_singular(matrix, rank)
    close = 20.0 * torch.finfo(dtype).eps
    assert (u.shape, s.shape, v.shape) == ((shape[0], rank), (rank,), (rank, shape[1]))
    torch.testing.assert_close(s, SPECTRA[name][:rank].to(dtype), rtol=0.0, atol=close)
    for rows in (u.T, v):
        torch.testing.assert_close(rows @ rows.T, torch.eye(rank, dtype=dtype), rtol=0.0, atol=close)
    left = float((matrix.double() - (u.double() * s.double()) @ v.double()).norm())
    assert left == pytest.approx(float(SPECTRA[name][rank:].double().norm()), rel=close, abs=10.0 * close)


@pytest.mark.parametrize("shape", [(80, 130), (130, 80)])
def test_power_iterations_come_nearer_and_follow_the_generator(shape) -> None:
    matrix = matrix_of(SPECTRA["flat"], shape)
    best, left = float(SPECTRA["flat"][6:].norm()), []
    for iterations in (0, 2, 8, 200):
        u, s, v = leading_singular(matrix, 6, iterations, torch.Generator().manual_seed(1))
        again = leading_singular(matrix, 6, iterations, torch.Generator().manual_seed(1))
        assert torch.equal(u, again[0])
        torch.testing.assert_close(u.T @ u, torch.eye(6, dtype=torch.float64))
        left.append(float((matrix - (u * s) @ v).norm()) / best - 1.0)
    assert left[0] > left[1] > left[2] > left[3]
    assert -1e-9 < left[3] < 0.02 * left[0]
    assert not torch.equal(u, leading_singular(matrix, 6, 200, torch.Generator().manual_seed(2))[0])
