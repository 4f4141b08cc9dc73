"""HyRes: optimality, an unbiased estimate of risk, noise by regressions one by one, and images that get better."""

from __future__ import annotations

import math

import pytest
import torch

from tikhon import TikhonError, hyres
from tikhon.math.wavelets import wavelet2d
from tikhon.solvers.inverse.hyres import noise_deviation, soft_threshold, sure_threshold


def normal(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(height: int = 32, width: int = 32, bands: int = 12, rank: int = 2):
    """A clean cube of smooth maps, a noisy one, and the deviation of the noise in each band."""
    t, s = (torch.linspace(0.0, 1.0, n, dtype=torch.float64) for n in (height, width))
    maps = torch.stack([torch.sin(3 * k * t)[:, None] * torch.cos(2 * k * s) for k in range(1, rank + 1)])
    clean = torch.einsum("khw,kb->hwb", maps, normal(rank, bands))
    deviation = 0.05 + 0.2 * torch.linspace(0.0, 1.0, bands, dtype=torch.float64)
    return clean, clean + deviation * normal(height, width, bands, seed=1), deviation


def test_coefficients_are_optimal() -> None:
    _, noisy, deviation = sample()
    found = hyres(noisy, noise=deviation, levels=3)
    whitened = (noisy / deviation).reshape(-1, 12)
    v = torch.linalg.svd(whitened, full_matrices=False)[2].T[:, : found.rank]
    given, kept = (
        wavelet2d((one @ v).T.reshape(-1, 32, 32), 3).flatten(1)
        for one in (whitened, (found.cube / deviation).reshape(-1, 12))
    )
    limit = found.thresholds[:, None]
    # 0 is in the subdifferential of 1/2 (x - y)^2 + threshold |x|
    zero = kept.abs() < 1e-8
    assert 0 < int(zero.sum()) < zero.numel()
    assert float(((given - kept).abs() - limit)[zero.expand_as(given)].max()) < 1e-9
    assert float((given - kept - limit * kept.sign())[~zero].abs().max()) < 1e-9


def test_the_estimate_of_risk_is_unbiased() -> None:
    truth = torch.where(torch.arange(400) < 60, 4.0, 0.0).double()
    differences = []
    for seed in range(200):
        x = truth + normal(400, seed=seed)
        estimate = 400 - 2 * (x.abs() <= 1.5).sum() + x.abs().clamp_max(1.5).square().sum()
        differences.append(float(estimate - (soft_threshold(x, 1.5) - truth).square().sum()))
    values = torch.tensor(differences)
    assert abs(float(values.mean())) < 3.0 * float(values.std()) / math.sqrt(200)


def test_the_threshold_is_the_least_of_all() -> None:
    x = torch.where(torch.arange(64) < 30, 5.0, 0.0).double()[:, None] + normal(64, 3)
    threshold, risk = sure_threshold(x, hybrid=False)
    grid = torch.cat([torch.zeros(1, dtype=x.dtype), x.abs().flatten()])
    grid = grid[grid <= math.sqrt(2 * math.log(64))]
    for k in range(3):
        risks = [
            64 - 2 * int((x[:, k].abs() <= t).sum()) + float(x[:, k].abs().clamp_max(t).square().sum()) for t in grid
        ]
        assert float(risk[k]) == pytest.approx(min(risks))
        own = 64 - 2 * int((x[:, k].abs() <= threshold[k]).sum())
        assert own + float(x[:, k].abs().clamp_max(threshold[k]).square().sum()) == pytest.approx(min(risks))


def test_noise_alone_gets_the_universal_threshold_and_signal_does_not() -> None:
    x = normal(1024, 40)
    x[:512, 20:] += 4.0
    universal = math.sqrt(2 * math.log(1024))
    threshold, risk = sure_threshold(x)
    alone, _ = sure_threshold(x, hybrid=False)
    torch.testing.assert_close(threshold[:20], torch.full((20,), universal, dtype=x.dtype))
    assert bool((risk[:20] >= x[:, :20].square().sum(0) - 1024 - 1e-9).float().mean() > 0.5)
    assert torch.equal(threshold[20:], alone[20:])
    assert float(alone[:20].min()) < universal - 0.5  # SURE alone is led by chance


def test_noise_is_what_regressions_leave() -> None:
    pixels = normal(200, 2) @ normal(2, 6, seed=1) + 0.3 * normal(200, 6, seed=2)
    for band in range(6):
        others = pixels[:, [k for k in range(6) if k != band]]
        left = pixels[:, band] - others @ torch.linalg.lstsq(others, pixels[:, band : band + 1]).solution[:, 0]
        expected = float((left.square().sum() / (200 - 5)).sqrt())
        assert float(noise_deviation(pixels)[band]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(32, 32), (40, 33), (7, 30)])
def test_images_get_better(shape) -> None:
    clean, noisy, deviation = sample(*shape)
    found = hyres(noisy.float())
    assert found.cube.dtype == torch.float32
    error, before = ((one - clean).square().mean() for one in (found.cube, noisy))
    assert float(error) < 0.2 * float(before)
    assert 1 <= found.rank <= 4
    ratio = found.noise.double() / deviation  # above 1 in bands of little noise, which others must predict
    assert float(ratio.min()) > 0.8
    assert float(ratio.median()) == pytest.approx(1.0, abs=0.15)
    assert found.thresholds.shape == (found.rank,)


def test_hybrid_thresholds_keep_fewer_components() -> None:
    clean, noisy, _ = sample(bands=30)
    hybrid, alone = hyres(noisy), hyres(noisy, hybrid=False)
    assert hybrid.rank <= 4 < alone.rank
    assert float((hybrid.cube - clean).square().sum()) < float((alone.cube - clean).square().sum())


def test_noise_alone_is_removed_and_signal_alone_stays() -> None:
    assert hyres(normal(32, 32, 5), noise=torch.ones(5)).rank <= 1
    clean, _, _ = sample()
    torch.testing.assert_close(hyres(clean).cube, clean, rtol=0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"cube": torch.zeros(8, 8)}, "H, W, B"),
        ({"cube": torch.zeros(8, 8, 3).long()}, "floating"),
        ({"cube": torch.zeros(4, 4, 20)}, "last axis"),
        ({"cube": torch.full((8, 8, 3), float("nan"))}, "NaN"),
        ({"cube": torch.zeros(8, 8, 3), "noise": torch.ones(2)}, "noise"),
        ({"cube": torch.zeros(8, 8, 3), "noise": torch.zeros(3)}, "positive"),
        ({"cube": torch.zeros(8, 8, 3), "levels": -1}, "levels"),
        ({"cube": torch.ones(8, 8, 3), "order": 11}, "order"),
    ],
)
def test_wrong_input(arguments, says) -> None:
    with pytest.raises(TikhonError, match=says):
        hyres(**arguments)
