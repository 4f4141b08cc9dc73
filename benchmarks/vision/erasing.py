"""Erased rectangles beside timm and torchvision: a whole batch, in which every image draws a rectangle of its own.

What they answer is drawn, so that a property is compared: how much of the batch is changed. Ours draws the ratio of the
sides as the paper does, theirs its logarithm. Our copy of a large batch lies in memory of NumPy's, which is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper

import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torchvision.transforms import v2

import tikhon as tk
from benchmarks.harness import Pair, case
from tikhon.core.plan import Plan
from tikhon.core.run import Run

SHAPES = ((128, 3, 32, 32), (64, 3, 224, 224))
COPIED = "the batch stays as it came: timm erases in place and gets a copy"
REPETITIONS = 120


def in_both_sizes(name: str, peer: str, note: str = "") -> Callable[[Callable[..., Pair]], Callable[..., Pair]]:
    """Make the function below, which builds a pair for a batch, two cases of the table."""

    def keep(pair: Callable[..., Pair]) -> Callable[..., Pair]:
        for shape in SHAPES:
            built = update_wrapper(lambda shape=shape: pair(torch.randn(shape)), pair)
            case(f"{name}, {' x '.join(map(str, shape))}", peer=peer, note=note)(built)
        return pair

    return keep


def ours(images: Tensor, method: tk.Method) -> Callable[[], Tensor]:
    """The method's moment on the batch, as a recipe calls it."""
    run = Run(tk.ClassLoss(), 0, None)
    run.adopt(nn.Linear(1, 1))
    step = Plan([method], run, "classes").entries[0].step
    target = tk.Target.of(torch.zeros(len(images), dtype=torch.int64))

    def call() -> Tensor:
        run.clock.number += 1  # what is drawn follows from the number of the step
        return method.batch(images, target, step)[0]

    return call


def alike(images: Tensor, mine: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> bool:
    """Whether both change as much, a tenth more or less: five times the standard error of what is drawn."""
    shares = []
    for call in (mine, theirs):
        changed = [(call() != images).any(1).float().mean() for _ in range(REPETITIONS)]
        shares.append(float(torch.stack(changed).mean()))
    return abs(shares[0] - shares[1]) < 0.1 * shares[1]


@in_both_sizes("random erasing with zeros", peer="timm", note=COPIED)
def timm_zeros(images: Tensor) -> Pair:
    return timms(images, fill=0.0, mode="const")


@in_both_sizes("random erasing with noise", peer="timm", note=COPIED)
def timm_noise(images: Tensor) -> Pair:
    return timms(images, fill="noise", mode="pixel")


def timms(images: Tensor, fill: float | str, mode: str) -> Pair:
    erase = RandomErasing(0.5, 0.02, 0.4, 0.3, mode=mode, device="cpu")
    mine = ours(images, tk.RandomErasing(fill=fill))

    def theirs() -> Tensor:
        return erase(images.clone())

    return Pair(mine, theirs, same=lambda: alike(images, mine, theirs), numpy=True)


@in_both_sizes("random erasing with noise", peer="torchvision", note="torchvision draws for one image at a time")
def torchvision_noise(images: Tensor) -> Pair:
    erase = v2.RandomErasing(0.5, (0.02, 0.4), (0.3, 1 / 0.3), value="random")
    mine = ours(images, tk.RandomErasing())

    def theirs() -> Tensor:
        return torch.stack([erase(image) for image in images])

    return Pair(mine, theirs, same=lambda: alike(images, mine, theirs), numpy=True)
