"""Does a field that is guided by block matching, and guides it, see depth better than either alone?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tikhon.core.fit import fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.math.stereo import block_matching, flattened, sampled, texture
from tikhon.methods.fields.intertwined import IntertwinedReg, Matcher
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

PIXELS, SEGMENTS, NOISE = 512, 8, 0.03
LEAST, MOST = 2.0, 30.0
CENTRE, SPREAD = 16.0, 14.0
EPOCHS, ROUND = 120, 30
PATCH = torch.arange(-3.0, 4.0)


QUARTER_LESS = -math.log(0.75)
"""How much lower the logarithm of an error is that is smaller by a quarter."""


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """See a bent wall, of textured and of flat segments in turn, in two lines of pixels.

    Measures: error (root mean squared error of the disparity at three pixels of four, in pixels), log_error (its
    logarithm), validation (minus the error at the fourth: the search may know the truth, for all arms alike).
    """
    left, right, truth, regions = _wall(torch.Generator().manual_seed(seed_for("wall", seed)))
    candidates = torch.arange(LEAST, MOST + 0.1, 0.25)

    def matcher(prediction: Tensor | None) -> tuple[Tensor, Tensor]:
        prior = None  # a restart leaves alone what has texture
        if prediction is not None:
            prior = torch.where(texture(left) > 5.0 * NOISE, torch.nan, flattened(disparity(prediction[:, 0]), regions))
        found, consistent = block_matching(left, right, candidates, settings["window"], prior)
        return ((found - CENTRE) / SPREAD)[:, None], consistent

    if settings["learning_rate"]:
        found = _field(settings, seed, report, matcher, (left, right))
    else:
        found = disparity(matcher(None)[0][:, 0])
        report(1.0)
    held = torch.arange(PIXELS) % 4 == 0
    errors = (found - truth).square()
    error = float(errors[~held].mean().sqrt())
    return {"error": error, "log_error": math.log(error), "validation": -float(errors[held].mean().sqrt())}


def _field(settings: Settings, seed: int, report: Report, matcher: Matcher, pair: tuple[Tensor, Tensor]) -> Tensor:
    """The disparity (PIXELS,) of a neural field that makes windows of both lines agree."""
    left, right = pair
    pixels = torch.arange(PIXELS, dtype=torch.float32)
    angles = torch.pi * (2.0 * pixels[:, None] / PIXELS - 1.0) * torch.tensor([0.5, 1.0, 2.0, 4.0])
    inputs = torch.cat([angles.sin(), angles.cos()], dim=1)
    target = torch.cat([pixels[:, None], sampled(left, pixels[:, None] + PATCH)], dim=1)

    def photometric(output: Tensor, target: Tensor) -> Tensor:
        place, window = target[:, :1], target[:, 1:]
        return (sampled(right, place + PATCH - disparity(output)) - window).abs().mean(1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    methods: list[Method] = []
    if settings["strength"]:
        methods.append(IntertwinedReg(matcher, settings["strength"], every=ROUND))
    trained, _ = fit(
        model,
        Recipe(*methods, base=photometric, seed=seed),
        (inputs, target),
        epochs=EPOCHS,
        batch_size=128,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=settings["learning_rate"]),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    with torch.no_grad():
        found: Tensor = disparity(trained(inputs))[:, 0]
        return found


def disparity(output: Tensor) -> Tensor:
    """In pixels, of what the field gives: around 0, of size 1."""
    return CENTRE + SPREAD * output


def _wall(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The left and the right line, the disparity of every left pixel, and which segment it belongs to; (PIXELS,)."""
    x = torch.arange(PIXELS, dtype=torch.float32)
    size = PIXELS // SEGMENTS
    regions = torch.arange(PIXELS) // size
    corners = LEAST + 1.0 + (MOST - LEAST - 2.0) * torch.rand(SEGMENTS + 1, generator=generator)
    truth = sampled(corners, x / size)
    texture = torch.randn(PIXELS, generator=generator)
    texture = texture + 0.5 * (texture.roll(1) + texture.roll(-1))
    shades = torch.randn(SEGMENTS, generator=generator)[regions]
    scene = torch.where(regions % 2 == 0, texture, shades)
    fine = torch.linspace(0.0, PIXELS - 1.0, 16 * PIXELS)
    seen_at = fine - sampled(truth, fine)  # rising: where the right line sees what the left one sees at `fine`
    nearest = torch.searchsorted(seen_at, x).clamp_max(len(fine) - 1)
    right = sampled(scene, fine[nearest])
    noise = NOISE * torch.randn(2, PIXELS, generator=generator)
    return scene + noise[0], right + noise[1], truth, regions


study = Study(
    question="After three restarts, is the error of the disparity below three quarters of that of the field alone, and "
    "of that of block matching alone?",
    setting="lines of 512 pixels, textured and flat segments in turn, disparities from 2 to 30, MLP 8-64-64-1, 120 "
    "epochs of Adam",
    run=run,
    arms={
        "field": [{"strength": 0.0, "window": 9, "learning_rate": rate} for rate in (0.003, 0.001, 0.01)],
        "matching": [{"strength": 0.0, "window": window, "learning_rate": 0.0} for window in (9, 15, 5)],
        "intertwined": [{"strength": strength, "window": 9, "learning_rate": 0.003} for strength in (0.3, 1.0, 3.0)],
    },
    expectations=[
        Expectation("intertwined", "field", "log_error", "lower", margin=QUARTER_LESS),
        Expectation("intertwined", "matching", "log_error", "lower", margin=QUARTER_LESS),
    ],
    seeds=8,
)
