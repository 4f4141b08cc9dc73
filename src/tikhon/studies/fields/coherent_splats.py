"""Do splats that a decoder moves together show views between three images better than splats that move alone?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.methods.fields.coherent_splats import flow_difference
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

SIDE, EPOCHS = 24, 200
SEEN, VALIDATION, NOVEL = (-1.0, 0.0, 1.0), (0.5,), (-0.75, -0.5, -0.25, 0.25, 0.75)
FLOW = 0.003


def splatted(centres: Tensor, values: Tensor, size: float, side: int) -> Tensor:
    """Images in which round Gaussians are blended by their weight at each pixel.

        I(p) = sum_n g_n(p) v_n / sum_n g_n(p),   g_n(p) = exp(-||p - centre_n||^2 / (2 size^2))

    centres: (B, N, 2), x and y in pixels; values: (N,); size: standard deviation in pixels. Returns (B, side, side); 0
    where no Gaussian is near.
    """
    pixels = torch.arange(side, dtype=centres.dtype)
    x, y = ((-(centres[..., axis, None] - pixels).square() / (2.0 * size**2)).exp() for axis in (0, 1))
    return (y.mT @ (x * values[:, None])) / (y.mT @ x + 1e-6)


class Splats(nn.Module):
    """A Gaussian a pixel of every image, with a colour; its disparity says how it moves with the camera."""

    cameras: Tensor
    pixels: Tensor

    def __init__(self, images: Tensor, disparity: Tensor) -> None:
        super().__init__()
        self.disparity = nn.Parameter(disparity[:, None].clone())
        self.colours = nn.Parameter(images.flatten().clone())
        self.register_buffer("cameras", torch.tensor(SEEN).repeat_interleave(SIDE**2))
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        self.register_buffer("pixels", torch.stack([x, y], dim=-1).reshape(-1, 2).float().repeat(len(SEEN), 1))

    def forward(self, cameras: Tensor) -> Tensor:
        moved = self.disparity.flatten() * (cameras - self.cameras)
        centres = torch.stack([self.pixels[:, 0] + moved, self.pixels[:, 1].expand_as(moved)], dim=-1)
        return splatted(centres, self.colours, 0.6, SIDE)


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """A textured relief seen by three cameras on a line, with noise; every image gets a guess of its disparities.

    The guess is smooth, and its scale and offset are wrong, as those of monocular depth are. Measures: psnr (dB, mean
    over five views between the cameras), train (dB, on the three images), validation (dB, on one more view between
    them; the best of 200 epochs there is kept in every arm).
    """
    generator = torch.Generator().manual_seed(seed_for("relief", seed))
    views = torch.tensor(SEEN + VALIDATION + NOVEL)[:, None]
    images, disparities = _scene(views, generator)
    taken = images[: len(SEEN)] + 0.03 * torch.randn(len(SEEN), SIDE, SIDE, generator=generator)
    scale, offset = (torch.randn(len(SEEN), 1, 1, generator=generator) for _ in range(2))
    guess = disparities[: len(SEEN)] * (1.0 + 0.25 * scale) + 0.5 * offset
    flows = _flows(disparities[: len(SEEN)], generator)
    model = Splats(taken, guess)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        errors = (output - target).square().mean((1, 2))
        return errors + FLOW * _mismatch(model.disparity[:, 0], flows) if settings["flow"] else errors

    def psnr(shown: nn.Module, rows: slice, wanted: Tensor) -> float:
        return float(-10.0 * torch.log10((shown(views[rows]) - wanted[rows]).square().mean((1, 2))).mean())

    checked = slice(len(SEEN), len(SEEN) + len(VALIDATION))
    trained, history = fit(
        model,
        Recipe(*parse_arm(settings["recipe"]).methods(), base=loss, seed=seed),
        (views[: len(SEEN)], taken),
        epochs=EPOCHS,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        metrics={"validation": lambda shown: psnr(shown, checked, images)},
        keep_best="validation",
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    with torch.no_grad():
        return {
            "psnr": psnr(trained, slice(len(SEEN) + len(VALIDATION), None), images),
            "train": psnr(trained, slice(len(SEEN)), taken),
            "validation": max(history.metrics["validation"]),
        }


def _scene(views: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and disparities (V, SIDE, SIDE) of a relief, from four times as many points a side as pixels."""
    fine = torch.arange(-8.0, SIDE + 8.0, 0.25)
    v, u = torch.meshgrid(torch.arange(0.0, SIDE, 0.25), fine, indexing="ij")
    waves, phases = torch.rand(2, 6, 2, generator=generator), 6.28 * torch.rand(2, 6, generator=generator)

    def mixed(kind: int, low: float, high: float) -> Tensor:
        frequencies = low + (high - low) * waves[kind]
        angles = u * frequencies[:, 0, None, None] + v * frequencies[:, 1, None, None] + phases[kind, :, None, None]
        return angles.sin().mean(0)

    relief, texture = 2.0 + 2.0 * mixed(0, 0.05, 0.25), 0.5 + 0.8 * mixed(1, 0.3, 1.2)
    centres = torch.stack([u + relief * views[..., None], v.expand(len(views), -1, -1)], dim=-1).flatten(1, 2)
    return splatted(centres, texture.flatten(), 0.3, SIDE), splatted(centres, relief.flatten(), 0.3, SIDE)


Flows = list[tuple[int, int, Tensor]]
"""From view, to view, where its pixels are found there (SIDE, SIDE, 2)."""


def _flows(disparities: Tensor, generator: torch.Generator) -> Flows:
    """As an estimator of optical flow would give it: the truth and half a pixel of noise."""
    found = []
    for i, j in ((0, 1), (1, 0), (1, 2), (2, 1)):
        along = disparities[i] * (SEEN[j] - SEEN[i]) + 0.5 * torch.randn(SIDE, SIDE, generator=generator)
        found.append((i, j, torch.stack([along, torch.zeros_like(along)], dim=-1)))
    return found


def _mismatch(disparities: Tensor, flows: Flows) -> Tensor:
    """How far points that correspond are apart, where on the relief they are and in disparity; a mean."""
    u = torch.arange(SIDE, dtype=disparities.dtype).expand(SIDE, SIDE)
    points = [torch.stack([u - one * camera, one], dim=-1) for one, camera in zip(disparities, SEEN, strict=True)]
    return torch.stack([flow_difference(points[i], points[j], flow).mean() for i, j, flow in flows]).mean()


study = Study(
    question="Are views between the cameras 2 dB better with splats that a decoder moves together than with splats "
    "that move alone, at most 2 dB worse on the images, and better still with variation held down and flow?",
    setting="three noisy 24 x 24 images of a textured relief, a Gaussian a pixel, 200 steps of Adam",
    run=run,
    arms={
        "alone": [{"recipe": "none", "flow": False, "learning_rate": rate} for rate in (0.003, 0.01, 0.03)],
        "decoder": [
            {"recipe": "coherent_splats(strength=0.0, where='disparity')", "flow": False, "learning_rate": rate}
            for rate in (0.001, 0.003, 0.01)
        ],
        "coherent": [
            {"recipe": f"coherent_splats(strength={strength}, where='disparity')", "flow": True, "learning_rate": 0.003}
            for strength in (1e-4, 1e-3, 1e-2)
        ],
    },
    expectations=[
        Expectation("decoder", "alone", "psnr", margin=2.0),
        Expectation("coherent", "alone", "psnr", margin=2.0),
        Expectation("coherent", "decoder", "psnr"),
        Expectation("coherent", "alone", "train", margin=-2.0),
    ],
)
