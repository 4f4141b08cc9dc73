"""Does the penalty make convolutions nearly isometric, and the network more robust?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.fit import fit
from tikhon.core.recipe import Recipe
from tikhon.data import build_model, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Expectation, Settings, Study, plain

EPOCHS = 15
ATTACK = 0.1


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Train a convolutional network.

    Measures: metric and validation (accuracy), robust (test accuracy under one signed gradient step of 0.1, the pixels
    being in [0, 1]), distortion (mean distance to 1 of the convolutions' singular values, as circular operators).
    """
    task = load_task("digits", seed=seed)
    model, _ = fit(
        build_model("cnn", task, seed=seed),
        Recipe(*parse_arm(settings["recipe"]).methods(), seed=seed),
        (task.train.inputs, task.train.target),
        epochs=EPOCHS,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings.get("learning_rate", 0.1), momentum=0.9),
        seed=seed,
        on_epoch=lambda epoch, _: report((epoch + 1) / EPOCHS),
    )
    model.eval()
    attacked = _signed_step(model, task.test.inputs, task.test.target)
    with torch.no_grad():
        return {
            "metric": accuracy(model(task.test.inputs), task.test.target),
            "robust": accuracy(model(attacked), task.test.target),
            "validation": accuracy(model(task.validation.inputs), task.validation.target),
            "distortion": _distortion(model),
        }


def _signed_step(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """The fast gradient sign attack (Goodfellow et al. 2015)."""
    inputs = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(inputs), labels), inputs)
    return (inputs + ATTACK * gradient.sign()).clamp(0.0, 1.0).detach()


def _distortion(model: nn.Module) -> float:
    """By the Fourier transform, which makes a circular convolution of stride 1 block diagonal (Sedghi et al. 2019)."""
    values = [
        torch.linalg.svdvals(torch.fft.fft2(layer.weight, s=(8, 8)).permute(2, 3, 0, 1)).flatten()
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    return float((torch.cat(values) - 1.0).abs().mean())


study = Study(
    question="Do the penalised convolutions keep lengths, at no loss of accuracy, and does the network resist attack?",
    setting="digits, convolutional network with batch norm, 15 epochs; attack: one signed gradient step of 0.1",
    run=run,
    arms={
        "none": plain(3, rates=(0.02, 0.05, 0.1)),
        "orth_conv": [{"recipe": f"orth_conv(strength={one})", "learning_rate": 0.02} for one in (0.01, 0.1, 1.0)],
    },
    expectations=[
        Expectation("orth_conv", "none", "distortion", "lower"),
        Expectation("orth_conv", "none", margin=-0.01),
        Expectation("orth_conv", "none", "robust"),
    ],
)
