"""Cutout: erase a square of every image at a random place, so that no part of it is indispensable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tikhon.core.batches import first_tensor, mix_inputs
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.boxes import Fill, checked_fill, erased, inside_boxes


class Cutout(Method):
    """Erase a square of every image, centred anywhere.

    Use it for classifiers of images or signals that rely on one small part of the input. Not where a small part decides
    the label, nor for flat features without neighbourhood. Inputs should be standardised, so that 0 is their mean.

        x <- x outside of the square, fill inside;   centre uniform over the image, side = side * size

    Signals (B, C, L), images (B, C, H, W) and volumes (B, C, D, H, W); every sample has a square of its own, of which
    what lies beyond the border is lost, as in the paper: it has less than its area on average.

    side: of the square, as a share of each axis, in [0, 1]; 0.5 on CIFAR-10 (the default: 16 of 32 pixels), 0.25 on
    CIFAR-100, 0.625 on SVHN; fill: a number, "mean" (of each channel of the sample) or "noise" (standard normal).

    Cost: one copy of the batch. Reference: DeVries, Taylor 2017, arXiv 1708.04552.

    >>> recipe = tikhon.Recipe(tikhon.Cutout(side=0.25))
    """

    card = Card(
        title="Improved Regularization of Convolutional Neural Networks with Cutout",
        authors="DeVries, Taylor",
        year=2017,
        arxiv="1708.04552",
        problems=("overfitting", "robustness"),
        formula=r"\tilde x = M \odot x,\quad M = 0 \text{ in a square at a random place}",
        claim="Lower test error on CIFAR-10, CIFAR-100 and SVHN, on top of other augmentation and regularisation.",
        helps="Images and signals, many epochs.",
        hurts="Short training; labels that hang on a small part of the input.",
        cost="A copy of the batch.",
        neutral="side=0",
    )
    slots = {"batch": "augment"}
    exempt = {
        "accumulation": "every micro-batch draws squares of its own",
        "permutation": "squares are drawn by place in the batch",
    }

    def __init__(self, side: Strength = 0.5, fill: Fill = 0.0) -> None:
        super().__init__()
        self.side = checked("side", side, low=0.0, high=1.0)
        self.fill = checked_fill(fill)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        first = first_tensor(inputs)
        sizes = tuple(first.shape[2:])
        if not sizes or not first.is_floating_point():
            raise TikhonError(
                f"{self.key} erases squares of signals (B, C, L), images (B, C, H, W) or volumes in floating point, "
                f"not of {first.dtype} of {tuple(first.shape)}. Reshape or convert them, or leave it out."
            )
        side = step.value(self.side)
        if side == 0.0:
            return inputs, target
        generator, device = step.generator(first.device), first.device
        size = torch.tensor(sizes, dtype=torch.float32, device=device)
        centres = size * torch.rand(len(first), len(sizes), generator=generator, device=device)
        mask = inside_boxes(sizes, centres, (side * size).expand_as(centres))

        def erase(values: Tensor) -> Tensor:
            if values.shape[2:] != sizes:
                raise TikhonError(f"{self.key}: inputs of sizes {sizes} and {tuple(values.shape[2:])} share no square.")
            return erased(values, mask, self.fill, generator)

        return mix_inputs(erase, inputs, self.key), target
