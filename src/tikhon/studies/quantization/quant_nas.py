"""Does the search find a network that upscales as well as fixed ones of one width, with fewer bit operations?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.blocks.quantization.aqt import freeze_bounds, quantize_aqt
from tikhon.core.fit import batches
from tikhon.core.method import Method
from tikhon.core.mixed import choices
from tikhon.core.noisy import Noise
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.core.strength import linear
from tikhon.data import load_task
from tikhon.math.quantization import step_size
from tikhon.methods.quantization.quant_nas import QuantNAS
from tikhon.studies.experiment import Report
from tikhon.studies.study import Expectation, Settings, Study

EPOCHS, BATCH, RATE = 15, 64, 3e-3  # of the search, and of the training that follows

WIDTH = 12
PLACES = ("body.0", "body.2")


class Upscaler(nn.Module):
    """Digits of 4 x 4 pixels to 8 x 8: what four convolutions add to every pixel repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()
        )
        self.tail = nn.Sequential(nn.Conv2d(WIDTH, 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.tail(self.body(self.head(x)))
        return added + F.interpolate(x, scale_factor=2.0)


def others() -> list[nn.Module]:
    """What may take the place of a convolution of the body: a cheaper one, and one of every channel by itself."""
    return [nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)]


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Of the arms "uniform" and "search": start with the fixed network or with what a search found, and train on
    integers. Of "plain" and "noise": train in floating point, then round the weights and inputs to 4 bits.

    Measures: metric and validation (peak signal to noise of the network on integers, in dB), cost (its bit operations
    for a picture, in millions); of a search left (by how many dB the mixture differs from the network that is chosen
    from it) and certainty (the least of the largest shares); of plain and noise lost (dB that rounding takes).
    """
    task = load_task("digits", seed=seed)
    train, validation, test = (
        (F.avg_pool2d(split.inputs, 2), split.inputs) for split in (task.train, task.validation, task.test)
    )
    arm = settings["arm"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed))
        model: nn.Module = Upscaler()
        widths, found = dict.fromkeys(layers(model), 4), {}
        if arm == "search":
            method = QuantNAS(
                price=settings["price"],
                entropy=linear(0.0, settings["entropy"]),
                alternatives={place: others() for place in PLACES},
            )
            recipe = fit(model, train, seed, method)
            found = search_measures(model, test)
            model, widths = recipe.export(), method.widths
            torch.manual_seed(seed_for("weights", seed))
            for module in layers(model).values():
                module.reset_parameters()
        if arm in ("plain", "noise"):
            noise = [QuantNAS(bits=(4,), price=0.0, entropy=0.0)] if arm == "noise" else []
            model = fit(model, train, seed, *noise).export()
            whole = peak_signal(model, test)
            round_to_nearest(model, 4)
            found = {"lost": whole - peak_signal(model, test)}
        else:
            quantize_aqt(model, widths, positive=widths)  # pictures, and what ReLU gives
            train_on_integers(model, train, seed)
    report(1.0)
    scores = {"metric": peak_signal(model, test), "validation": peak_signal(model, validation)}
    return found | scores | {"cost": bit_operations(model, widths, train[0][0])}


def train_on_integers(model: nn.Module, train: tuple[Tensor, Tensor], seed: int) -> None:
    """Bounds of inputs are frozen after the first epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for epoch in range(EPOCHS):
        for _, x, y in batches(*train, BATCH, seed, epoch):
            optimizer.zero_grad()
            F.l1_loss(model.train()(x), y).backward()
            optimizer.step()
        freeze_bounds(model)


def fit(model: nn.Module, train: tuple[Tensor, Tensor], seed: int, *methods: Method) -> Recipe:
    """The recipe of a training in floating point that has ended; logits of a search have a rate of their own."""
    recipe = Recipe(*methods, base=F.l1_loss, seed=seed)
    named = dict(recipe.prepare(model).named_parameters())
    logits = [one for name, one in named.items() if name.endswith("choice.logits")]
    weights = [one for name, one in named.items() if not name.endswith("choice.logits")]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": logits, "lr": 2e-2}]
    optimizer = torch.optim.Adam(groups if logits else groups[:1], lr=RATE)
    recipe.attach(optimizer, epochs=EPOCHS, steps=EPOCHS * math.ceil(len(train[0]) / BATCH))
    for epoch in range(EPOCHS):
        model.train()
        for _, x, y in batches(*train, BATCH, seed, epoch):
            optimizer.zero_grad()
            recipe.loss(x, y).backward()
            optimizer.step()
        recipe.end_epoch()
    return recipe


def search_measures(model: nn.Module, test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """left and certainty of a search that has not been exported."""
    certainty = min(float(choice.shares().detach().max()) for _, _, choice in choices(model))
    chosen = peak_signal(model, test)
    model.train()
    for module in model.modules():
        if isinstance(module, Noise):
            module.eval()  # the mixture as it is, without noise
    with torch.no_grad():
        mixture = -10.0 * math.log10(float(F.mse_loss(model(test[0]), test[1])))
    return {"certainty": certainty, "left": abs(mixture - chosen)}


@torch.no_grad()
def peak_signal(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Peak signal to noise in dB, of pixels in [0, 1]."""
    return -10.0 * math.log10(float(F.mse_loss(model.eval()(data[0]), data[1])))


def layers(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def bit_operations(model: nn.Module, widths: dict[str, int], picture: Tensor) -> float:
    """Multiplications times bits squared, in millions: every convolution keeps the size of the picture."""
    counts = {name: layer.weight.numel() * picture.numel() for name, layer in layers(model).items()}
    return sum(counts[name] * bits**2 for name, bits in widths.items()) / 1e6


@torch.no_grad()
def round_to_nearest(model: nn.Module, bits: int) -> None:
    """Round weights, and inputs by a hook, on the grids whose steps the noise has: one for a whole tensor."""

    def nearest(values: Tensor) -> Tensor:
        step = step_size(values, bits)
        zero = (-values.min().clamp_max(0.0) / step).round().int()
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(values, step, zero, 0, 2**bits - 1)
        return rounded

    for layer in layers(model).values():
        layer.weight.copy_(nearest(layer.weight))
        layer.register_forward_pre_hook(lambda _, args: nearest(args[0]))


study = Study(
    question="Is a network whose operations and bits were searched above one of 4 bits throughout, at no more bit "
    "operations; does growing entropy leave the network that the mixture was; does rounding cost weights less that "
    "were trained with noise?",
    setting="digits from 4 x 4 to 8 x 8 pixels, four convolutions, 3 operations in two places, 2, 4 or 8 bits in all, "
    "15 epochs of search and 15 of training on integers",
    run=run,
    arms={
        "uniform": [{"arm": "uniform"}],
        "quant_nas": [{"arm": "search", "price": 3e-4, "entropy": 0.01}],
        "no_entropy": [{"arm": "search", "price": 3e-4, "entropy": 0.0}],
        "plain": [{"arm": "plain"}],
        "noise": [{"arm": "noise"}],
    },
    expectations=[
        Expectation("quant_nas", "uniform"),
        Expectation("quant_nas", "uniform", "cost", "lower"),
        Expectation("quant_nas", "no_entropy", "left", "lower"),
        Expectation("noise", "plain", "lost", "lower", margin=0.2),
    ],
)
