"""Losses and distances of metric learning beside pytorch-metric-learning, backward included."""

from __future__ import annotations

import torch
from pytorch_metric_learning.distances import SNRDistance
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from torch import Tensor

from benchmarks.harness import Pair, case
from tikhon.math.distances import snr_distances
from tikhon.math.variational import supervised_contrast

PAIRS = "The peer makes a list of all pairs."


def features(rows: int, width: int = 128) -> Tensor:
    return torch.randn(rows, width, requires_grad=True)


def gradient(loss: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
    return loss, torch.autograd.grad(loss, of)[0]


for rows, classes in ((128, 10), (512, 100)):

    @case(f"supervised contrast, {rows} x 128, {classes} classes", peer="pytorch-metric-learning", note=PAIRS)
    def supervised(rows: int = rows, classes: int = classes) -> Pair:
        z, labels = features(rows), torch.arange(rows) % classes
        peer = SupConLoss(temperature=0.1)
        return Pair(
            lambda: gradient(supervised_contrast(z, labels, 0.1).mean(), z),
            lambda: gradient(peer(z, labels), z),
        )


for rows in (64, 128):

    @case(f"NT-Xent, 2 x {rows} views of 128", peer="pytorch-metric-learning", note=PAIRS)
    def nt_xent(rows: int = rows) -> Pair:
        z, samples = features(2 * rows), torch.arange(rows).repeat(2)
        peer = NTXentLoss(temperature=0.5)
        return Pair(
            # Supervised contrast is NT-Xent where the label of a view is its sample.
            lambda: gradient(supervised_contrast(z, samples, 0.5).mean(), z),
            lambda: gradient(peer(z, samples), z),
        )


for rows in (128, 512):

    @case(
        f"SNR distance, {rows} x {rows} of 128",
        peer="pytorch-metric-learning",
        note="The peer holds the difference of every pair.",
    )
    def snr(rows: int = rows) -> Pair:
        z, others, peer = features(rows), torch.randn(rows, 128), SNRDistance(normalize_embeddings=False)
        weight = torch.randn(rows, rows)
        return Pair(
            lambda: gradient((weight * snr_distances(z, others)).sum(), z),
            lambda: gradient((weight * peer(z, others)).sum(), z),
            tolerance=1e-4,
        )
