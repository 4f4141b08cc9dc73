"""Do components and wavelets together restore a hyperspectral image better than either, at the right rank?"""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.step import seed_for
from tikhon.math.wavelets import inverse_wavelet2d, wavelet2d
from tikhon.solvers.inverse.hyres import hyres, noise_deviation, soft_threshold, sure_threshold
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

SIDE, BANDS, RANK, LEVELS = 32, 30, 4, 5


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Four smooth maps with a patch each, mixed by smooth spectra, with noise of another strength in every band.

    Measures: psnr (dB, against the greatest clean value), rank_error (components too many or too few, where components
    are counted), validation (psnr: there is nothing to choose).
    """
    generator = torch.Generator().manual_seed(seed_for("cube", seed))
    clean = _clean(generator)
    deviation = clean.std() * (0.1 + 0.6 * torch.rand(BANDS, generator=generator, dtype=torch.float64))
    noisy = clean + deviation * torch.randn(SIDE, SIDE, BANDS, generator=generator, dtype=torch.float64)
    restored, rank = ARMS[settings["restorer"]](noisy)
    report(1.0)
    psnr = float(10.0 * torch.log10(clean.abs().max().square() / (restored - clean).square().mean()))
    return {"psnr": psnr, "rank_error": abs(rank - RANK), "validation": psnr}


def _clean(generator: torch.Generator) -> Tensor:
    t = torch.linspace(0.0, 1.0, SIDE, dtype=torch.float64)
    middles, waves = (torch.rand(RANK, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    maps = []
    for (row, column), (fast, slow) in zip(middles.tolist(), waves.tolist(), strict=True):
        wave = torch.sin(2.0 + 6.0 * fast * t)[:, None] * torch.cos(1.0 + 4.0 * slow * t)
        maps.append(wave + ((t[:, None] - row).square() + (t - column).square() < 0.05))
    places = torch.linspace(0.0, 1.0, BANDS, dtype=torch.float64)
    bumps = torch.exp(-(places - torch.linspace(0.0, 1.0, 6, dtype=torch.float64)[:, None]).square() / 0.02)
    spectra = torch.randn(RANK, 6, generator=generator, dtype=torch.float64) @ bumps
    return torch.einsum("khw,kb->hwb", torch.stack(maps), spectra)


def _components(noisy: Tensor) -> tuple[Tensor, float]:
    """The first components of the whitened bands, as many as there are: the truth is told."""
    deviation = noise_deviation(noisy.reshape(-1, BANDS))
    v = torch.linalg.svd((noisy / deviation).reshape(-1, BANDS), full_matrices=False)[2].T[:, :RANK]
    return noisy / deviation @ v @ v.T * deviation, RANK


def _wavelets(noisy: Tensor) -> tuple[Tensor, float]:
    """Every band by itself, by the same thresholds."""
    deviation = noise_deviation(noisy.reshape(-1, BANDS))
    x = wavelet2d((noisy / deviation).permute(2, 0, 1), LEVELS)
    thresholds, _ = sure_threshold(x.flatten(1).T)
    restored = inverse_wavelet2d(soft_threshold(x, thresholds[:, None, None]), LEVELS)
    return restored.permute(1, 2, 0) * deviation, BANDS


def _hyres(noisy: Tensor) -> tuple[Tensor, float]:
    found = hyres(noisy)
    return found.cube, found.rank


def _sure_alone(noisy: Tensor) -> tuple[Tensor, float]:
    found = hyres(noisy, hybrid=False)
    return found.cube, found.rank


ARMS = {
    "noisy": lambda noisy: (noisy, BANDS),
    "components": _components,
    "wavelets": _wavelets,
    "hyres": _hyres,
    "sure_alone": _sure_alone,
}

study = Study(
    question="Does HyRes gain 8 dB, more than components of the true rank or wavelets in each band do, and does it "
    "find the rank better with hybrid thresholds than by SURE alone?",
    setting="32 x 32 x 30 cubes of rank 4, noise of 0.1 to 0.7 standard deviations of the signal",
    run=run,
    arms={name: [{"restorer": name}] for name in ARMS},
    expectations=[
        Expectation("hyres", "noisy", "psnr", margin=8.0),
        Expectation("hyres", "components", "psnr"),
        Expectation("hyres", "wavelets", "psnr"),
        Expectation("hyres", "sure_alone", "rank_error", "lower"),
        Expectation("hyres", "sure_alone", "psnr"),
    ],
    seeds=10,
)
