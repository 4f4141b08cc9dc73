"""Losses of features learned without labels beside lightly's, backward included."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightly.loss import BarlowTwinsLoss, NTXentLoss, VICRegLoss
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import Pair, case
from tikhon.math.decorrelation import barlow_twins, standardised
from tikhon.math.variational import supervised_contrast
from tikhon.methods.features.vicreg import covariance_penalty, variance_hinge

SIZES = {"256 x 128": (256, 128), "256 x 2048": (256, 2048)}


def two_views(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    first = torch.randn(size)
    return first.requires_grad_(), (first.detach() + torch.randn(size)).requires_grad_()


def with_gradients(loss: Callable[[Tensor, Tensor], Tensor], views: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    value = loss(*views)
    return value, *torch.autograd.grad(value, views)


def vicreg(one: Tensor, other: Tensor) -> Tensor:
    """As `tk.VICReg` adds its terms up, with the weight of the official code for the variance."""
    variance = variance_hinge(one) + variance_hinge(other)
    covariance = covariance_penalty(one) + covariance_penalty(other)
    return 25.0 * F.mse_loss(one, other) + 12.5 * variance + covariance


def barlow(one: Tensor, other: Tensor) -> Tensor:
    invariance, redundancy = barlow_twins(standardised(one), standardised(other))
    return invariance + 0.005 * redundancy


def nt_xent(one: Tensor, other: Tensor) -> Tensor:
    """Supervised contrast where the label of a view is its sample."""
    samples = torch.arange(len(one)).repeat(2)
    return supervised_contrast(torch.cat([one, other]), samples, 0.5).mean()


for name, size in SIZES.items():

    @case(f"VICReg, {name}", peer="lightly")
    def variance_and_covariance(size: tuple[int, int] = size) -> Pair:
        views, peer = two_views(size), VICRegLoss()
        return Pair(lambda: with_gradients(vicreg, views), lambda: with_gradients(peer, views))

    @case(f"Barlow twins, {name}", peer="lightly")
    def twins(size: tuple[int, int] = size) -> Pair:
        views, peer = two_views(size), BarlowTwinsLoss()
        # The peer adds 1e-5 to every variance.
        return Pair(lambda: with_gradients(barlow, views), lambda: with_gradients(peer, views), tolerance=1e-4)


@case("NT-Xent, 2 x 256 views of 128", peer="lightly")
def contrast() -> Pair:
    views, peer = two_views((256, 128)), NTXentLoss(temperature=0.5)
    return Pair(lambda: with_gradients(nt_xent, views), lambda: with_gradients(peer, views))
