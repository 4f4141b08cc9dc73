"""CutMix: paste a box of one sample into another, and share the label by the area."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from tikhon.math.random import beta

Box = tuple[slice, ...]
"""One slice for each spatial axis."""


def cut_box(sizes: Sequence[int], share: float, centre: Sequence[float]) -> Box:
    """The box that takes the part 1 - share of the whole, where it fits (Yun et al. 2019, arXiv 1905.04899, eq. 2).

    sizes: of the d spatial axes, in pixels; share: kept of the sample, in [0, 1]; centre: in pixels, uniform in
    [0, size). Every side is (1 - share)^(1/d) of its axis; ends beyond the border are clipped, then rounded.

    >>> cut_box((8, 8), 0.75, (4.0, 7.0))
    (slice(2, 6, None), slice(5, 8, None))
    """
    ratio = (1.0 - share) ** (1.0 / len(sizes))

    def side(size: int, middle: float) -> slice:
        half = 0.5 * ratio * size
        # Half a pixel is rounded up at both ends, so that it does not change the length.
        return slice(math.floor(max(middle - half, 0.0) + 0.5), math.floor(min(middle + half, size) + 0.5))

    return tuple(side(size, middle) for size, middle in zip(sizes, centre, strict=True))


def truncated_box(sizes: Sequence[int], share: float, centre: Sequence[float]) -> Box:
    """The box of the official code: sides truncated to an even number of pixels, the centre to a whole pixel.

    On small inputs it is clearly smaller than asked for: at 8 pixels and a share of one half 4 wide instead of 5.7.

    >>> truncated_box((8, 8), 0.63, (6, 3))
    (slice(4, 8, None), slice(1, 5, None))
    """
    ratio = (1.0 - share) ** (1.0 / len(sizes))

    def side(size: int, middle: float) -> slice:
        half = int(size * ratio) // 2
        return slice(max(int(middle) - half, 0), min(int(middle) + half, size))

    return tuple(side(size, middle) for size, middle in zip(sizes, centre, strict=True))


def share_outside(sizes: Sequence[int], box: Box) -> float:
    """Which part of the pixels the box leaves alone, in [0, 1], by count.

    >>> share_outside((8, 8), (slice(4, 8), slice(1, 5)))
    0.75
    """
    whole: int = math.prod(sizes)
    pasted: int = math.prod(side.stop - side.start for side in box)
    return (whole - pasted) / whole


def cutmix(inputs: Tensor, permutation: Tensor, box: Box) -> Tensor:
    """The inputs with the box of inputs[permutation] pasted in.

    inputs: (B, C, ...) with one spatial axis for each slice of the box; permutation: (B,) integers. Returns the same
    shape; the inputs stay untouched.

    >>> cutmix(torch.tensor([[[1.0, 1.0, 1.0]], [[2.0, 2.0, 2.0]]]), torch.tensor([1, 0]), (slice(1, 2),))
    tensor([[[1., 2., 1.]],
    <BLANKLINE>
            [[2., 1., 2.]]])
    """
    region = (slice(None), slice(None), *box)
    mixed = inputs.clone()
    mixed[region] = inputs[region].index_select(0, permutation)
    return mixed


class CutMix(Method):
    """Paste a box of one sample into another, with their targets combined by the number of pixels.

    Use it for classifiers of images or signals that rely on one small part of the input. Not where a small part decides
    the label (the box may hold or hide it), nor for flat features without neighbourhood. It needs longer training.

        l ~ Beta(alpha, alpha),  box of 1 - l of the area,  loss = l' loss(y_i) + (1 - l') loss(y_j)

    with l' the share of pixels that the box leaves, counted after clipping at the border. Signals (B, C, L), images
    (B, C, H, W) and volumes (B, C, D, H, W); one box for the whole batch.

    alpha: at least 0, 1 by default (then l is uniform), 0 is plain training; p: the chance that a batch is mixed, in
    [0, 1]; 1 on ImageNet (the default), 0.5 on CIFAR; truncate: the official code's smaller box of whole, even sides.

    Cost: one copy of the batch. Reference: Yun, Han, Oh, Chun, Choe, Yoo 2019, arXiv 1905.04899.

    >>> recipe = tikhon.Recipe(tikhon.CutMix(alpha=1.0, p=0.5))
    """

    card = Card(
        title="CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
        authors="Yun, Han, Oh, Chun, Choe, Yoo",
        year=2019,
        arxiv="1905.04899",
        problems=("overfitting", "robustness", "calibration"),
        formula=r"\tilde x = M \odot x_i + (1-M) \odot x_j,\quad \tilde y = \lambda y_i + (1-\lambda) y_j",
        claim="Beats Cutout and MixUp on CIFAR and ImageNet; better localisation, robustness and transfer.",
        helps="Images and signals, many epochs.",
        hurts="Short training; labels that hang on a small part of the input.",
        cost="A copy of the batch.",
        neutral="p=0",
    )
    slots = {"batch": "mix"}
    exempt = {
        "accumulation": "every micro-batch mixes within itself",
        "permutation": "partners are drawn by their place in the batch",
    }

    def __init__(self, alpha: Strength = 1.0, p: Strength = 1.0, truncate: bool = False) -> None:
        super().__init__()
        self.alpha = checked("alpha", alpha, low=0.0)
        self.p = checked("p", p, low=0.0, high=1.0)
        self.truncate = truncate

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        sizes = tuple(first_tensor(inputs).shape[2:])
        self._refuse(sizes, target)
        alpha, chance, generator = step.value(self.alpha), step.value(self.p), step.generator()
        # Drawn on the CPU, so that the share is a Python number without waiting for the device.
        if alpha == 0.0 or float(torch.rand((), generator=generator)) >= chance:
            return inputs, target
        share = beta(alpha, generator)
        draws = torch.rand(len(sizes), generator=generator, dtype=torch.float64).tolist()
        centre = [size * draw for size, draw in zip(sizes, draws, strict=True)]
        box = (truncated_box if self.truncate else cut_box)(sizes, share, centre)
        share = share_outside(sizes, box)
        if share == 1.0:
            return inputs, target
        device = first_tensor(inputs).device
        permutation = torch.randperm(len(target), generator=step.generator(device), device=device)

        def paste(values: Tensor) -> Tensor:
            if values.shape[2:] != sizes:
                raise TikhonError(f"{self.key}: inputs of sizes {sizes} and {tuple(values.shape[2:])} share no box.")
            return cutmix(values, permutation, box)

        return mix_inputs(paste, inputs, self.key), target.mix(permutation, share)

    def _refuse(self, sizes: tuple[int, ...], target: Target) -> None:
        if not sizes:
            raise TikhonError(
                f"{self.key} cuts boxes from signals (B, C, L), images (B, C, H, W) or volumes, and these inputs have "
                "no such axes. Reshape them (x.unsqueeze(1) makes signals of one channel), or use MixUp."
            )
        if target.value.ndim > (2 if target.value.is_floating_point() else 1):
            raise TikhonError(
                f"{self.key} shares one target a sample by the area, and these have one for each position, "
                f"{tuple(target.value.shape)}. Leave it out."
            )
