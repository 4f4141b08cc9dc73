"""On what cost is measured: the reference models, each with data of a typical shape."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from tikhon.data.sources import load_source


@dataclass(frozen=True)
class Reference:
    """Data for a model, the size of a batch, and in how many rounds blocks of its steps are timed."""

    data: str
    batch_size: int
    repetitions: int


def enlarged_digits() -> tuple[Tensor, Tensor]:
    """The digits as colour images of 32x32 pixels: inputs (1797, 3, 32, 32) and labels."""
    digits = load_source("digits").train
    images = F.interpolate(digits.inputs, size=(32, 32), mode="bilinear", align_corners=False)
    return images.repeat(1, 3, 1, 1), digits.target


REFERENCES = {
    "mlp": Reference("digits", 128, 200),
    "resnet20": Reference("tikhon.studies.references:enlarged_digits", 32, 10),
    "transformer": Reference("digits", 32, 30),
    "ode": Reference("digits", 128, 40),
}
OTHER = Reference("digits", 128, 200)
"""For every other model."""
