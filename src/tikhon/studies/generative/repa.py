"""Does a flow model whose hidden features are aligned with an encoder's reach better samples in as many steps?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import batches, fit
from tikhon.core.method import Method
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import build_model, load_task
from tikhon.methods.generative.repa import REPA, interpolant
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS = 60
WIDTH = 256


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train a flow model of digits; the encoder is the first hidden layer of a classifier trained on them.

    Measures: distance (Frechet distance of 500 samples to the test images in features of the encoder), validation
    (minus the distance to the validation images, of other samples).
    """
    task = load_task("digits", seed=seed)
    pixels = task.train.inputs.flatten(1)
    classifier, _ = fit(
        build_model("mlp", task, seed=seed),
        Recipe(seed=seed),
        (task.train.inputs, task.train.target),
        epochs=20,
        seed=seed,
    )
    layers = [module for module in classifier.modules() if isinstance(module, nn.Linear)]

    @torch.no_grad()
    def encoded(x: Tensor) -> Tensor:
        return F.relu(layers[0](x))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model = nn.Sequential(
            nn.Linear(pixels.shape[1] + 1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(),
            nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, pixels.shape[1]),
        )  # fmt: skip
    methods: list[Method] = []
    if settings["strength"]:
        methods.append(REPA(encoded(pixels), at="3", size=WIDTH, strength=settings["strength"], width=WIDTH))
    recipe = Recipe(*methods, base=F.mse_loss, seed=seed)
    recipe.prepare(model, samples=len(pixels))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    recipe.attach(optimizer, epochs=EPOCHS)
    noise = torch.Generator().manual_seed(seed_for("noise", seed))
    for epoch in range(EPOCHS):
        for index, x, _ in batches(pixels, task.train.target, 128, seed, epoch):
            t = torch.rand(len(x), generator=noise)
            noisy, velocity = interpolant(x, torch.randn(x.shape, generator=noise), t)
            optimizer.zero_grad()
            recipe.loss(torch.cat([noisy, t[:, None]], dim=1), velocity, index=index).backward()
            optimizer.step()
        recipe.end_epoch()
        report((epoch + 1) / EPOCHS)
    trained = recipe.export()
    held = {"test": task.test.inputs.flatten(1), "validation": task.validation.inputs.flatten(1)}
    found = {
        name: _frechet(encoded(_samples(trained, pixels.shape[1], seed_for(name, seed))), encoded(images))
        for name, images in held.items()
    }
    return {"distance": found["test"], "validation": -found["validation"]}


@torch.no_grad()
def _samples(model: nn.Module, pixels: int, seed: int, count: int = 500, steps: int = 50) -> Tensor:
    """Samples by Euler steps from noise to data."""
    x = torch.randn(count, pixels, generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        t = torch.full((count, 1), 1.0 - step / steps)
        x = x - model(torch.cat([x, t], dim=1)) / steps
    return x


def _frechet(one: Tensor, other: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of two sets of features."""
    one, other = one.double(), other.double()
    first, second = torch.cov(one.T), torch.cov(other.T)
    roots = torch.linalg.eigvals(first @ second).real.clamp_min(0.0).sqrt().sum()
    return float((one.mean(0) - other.mean(0)).square().sum() + torch.trace(first) + torch.trace(second) - 2 * roots)


def rates(strength: float) -> list[Settings]:
    return [{"strength": strength, "learning_rate": rate} for rate in (1e-3, 3e-3)]


study = Study(
    question="After as many steps, are the samples of an aligned flow model nearer to the data?",
    setting="digits, flow model MLP 65-256-256-256-64, 60 epochs; encoder: first hidden layer of a classifier",
    run=run,
    arms={"none": rates(0.0), "repa": rates(0.5)},
    expectations=[Expectation("repa", "none", "distance", "lower")],
)
