"""Random erasing: replace a rectangle of random area and shape by noise, in some of the images."""

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
from tikhon.math.boxes import Fill, checked_fill, erased_regions, regions_inside

TRIES = 10
"""Rectangles drawn for an image until one fits: for square images and the paper's range one in 20 does not."""


def rectangles(
    sizes: tuple[int, int], draws: Tensor, smallest: float, largest: float, aspect: float
) -> tuple[Tensor, Tensor]:
    """Centres and sides of rectangles in images (Zhong et al. 2017, arXiv 1708.04896, algorithm 1).

        area s ~ U(smallest, largest) H W,   r ~ U(aspect, 1 / aspect),   height sqrt(s r),   width sqrt(s / r)

    sizes: (H, W), in pixels; draws: (B, tries, 4), uniform in [0, 1), for area, shape and place; smallest, largest:
    shares of the area; aspect: in (0, 1]. Of its tries each image takes the first that is no larger than the image, at
    a place where it lies inside. Returns two tensors (B, 2), in pixels; the sides are 0 where no try fits.

    >>> centres, sides = rectangles((8, 8), torch.full((1, 1, 4), 0.5), 0.25, 0.25, 1.0)
    >>> centres, sides
    (tensor([[4., 4.]]), tensor([[4., 4.]]))
    """
    size = draws.new_tensor(sizes)
    area = (smallest + (largest - smallest) * draws[..., 0]) * size.prod()
    shape = aspect + (1.0 / aspect - aspect) * draws[..., 1]
    sides = torch.stack([(area * shape).sqrt(), (area / shape).sqrt()], dim=-1)
    fits = (sides <= size).all(-1)
    first = fits.to(torch.uint8).argmax(1)
    rows = torch.arange(len(draws), device=draws.device)
    chosen = sides[rows, first] * fits.any(1)[:, None]
    return 0.5 * chosen + draws[rows, first, 2:] * (size - chosen), chosen


class RandomErasing(Method):
    """Erase a rectangle of random area and shape, in some of the images.

    Use it for classifiers and detectors of images that must bear occlusion. Not where a small part decides the label.
    Inputs should be standardised: the noise is standard normal, where the paper takes uniform values of raw pixels.

        area ~ U(smallest, largest) of the image,   height / width ~ U(aspect, 1 / aspect),   place uniform, all inside

    p: the share of images that lose a rectangle, in [0, 1]; smallest, largest: its area as a share of the image's, in
    [0, 1]; aspect: the least ratio of the sides, in [0.01, 1]; the defaults are the paper's (0.5; 0.02 to 0.4; 0.3).
    fill: "noise", the paper's best, a number, or "mean" (of each channel of the sample). Libraries draw the logarithm
    of the ratio uniformly; the paper and its code draw the ratio.

    Cost: one copy of the batch. Reference: Zhong, Zheng, Kang, Li, Yang 2017, arXiv 1708.04896.

    >>> recipe = tikhon.Recipe(tikhon.RandomErasing(p=0.25))
    """

    card = Card(
        title="Random Erasing Data Augmentation",
        authors="Zhong, Zheng, Kang, Li, Yang",
        year=2017,
        arxiv="1708.04896",
        problems=("overfitting", "robustness"),
        formula=r"\tilde x = x \text{ outside of a random rectangle},\ \mathcal N(0, 1) \text{ inside}",
        claim="Lower error in classification, detection and person re-identification, and robustness to occlusion.",
        helps="Images, occlusion, many epochs.",
        hurts="Short training; labels that hang on a small part of the input.",
        cost="A copy of the batch.",
        neutral="p=0",
    )
    slots = {"batch": "augment"}
    exempt = {
        "accumulation": "every micro-batch draws rectangles of its own",
        "permutation": "rectangles are drawn by place in the batch",
    }

    def __init__(
        self,
        p: Strength = 0.5,
        smallest: Strength = 0.02,
        largest: Strength = 0.4,
        aspect: Strength = 0.3,
        fill: Fill = "noise",
    ) -> None:
        super().__init__()
        self.p = checked("p", p, low=0.0, high=1.0)
        self.smallest = checked("smallest", smallest, low=0.0, high=1.0)
        self.largest = checked("largest", largest, low=0.0, high=1.0)
        if isinstance(self.smallest, float) and isinstance(self.largest, float) and self.smallest > self.largest:
            raise TikhonError(f"smallest must be at most largest, and {smallest} is more than {largest}.")
        self.aspect = checked("aspect", aspect, low=0.01, high=1.0)
        self.fill = checked_fill(fill)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        first = first_tensor(inputs)
        if first.ndim != 4 or not first.is_floating_point():
            raise TikhonError(
                f"{self.key} erases rectangles of images (B, C, H, W) in floating point, not of {first.dtype} of "
                f"{tuple(first.shape)}. Reshape or convert them, or use Cutout for signals and volumes."
            )
        p = step.value(self.p)
        if p == 0.0:
            return inputs, target
        sizes = (first.shape[2], first.shape[3])
        # Drawn on the CPU, so that the rectangles are known without waiting for the device.
        generator, rows = step.generator(), len(first)
        draws = torch.rand(rows, TRIES, 4, generator=generator)
        centres, sides = rectangles(
            sizes, draws, step.value(self.smallest), step.value(self.largest), step.value(self.aspect)
        )
        sides = sides * (torch.rand(rows, 1, generator=generator) < p)
        regions = regions_inside(centres, sides)

        def erase(values: Tensor) -> Tensor:
            if values.shape[2:] != sizes:
                raise TikhonError(
                    f"{self.key}: inputs of sizes {sizes} and {tuple(values.shape[2:])} share no rectangle."
                )
            return erased_regions(values, regions, self.fill, step.generator(values.device))

        return mix_inputs(erase, inputs, self.key), target
