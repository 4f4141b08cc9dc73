"""Terms of variational and contrastive losses that models with a latent space share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 2**20
"""Entries of a matrix of pairs that is worked on at once: they stay near the processor."""


def gaussian_divergence(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(prior mean, prior variance)) of diagonal Gaussians, summed over the last dimension.

    All (B, D), or shapes that broadcast. Returns (B,), at least 0, in nats.

    >>> zeros = torch.zeros(1, 2)
    >>> gaussian_divergence(torch.ones(1, 2), zeros, zeros, zeros)
    tensor([1.])
    """
    ratio = (log_variance - prior_log_variance).exp()
    distance = (mean - prior_mean).square() * (-prior_log_variance).exp()
    return 0.5 * (ratio + distance - 1.0 + prior_log_variance - log_variance).sum(-1)


def supervised_contrast(features: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Every sample's mean of -log softmax over the others, at those of its class (Khosla et al. 2020).

    features: (B, D), compared by cosine; labels: (B,), integers; temperature: positive. Returns (B,), 0 for a sample
    that is alone in its class. Memory: a matrix (B, B), kept for the gradient. Where the label of each of two views is
    their sample, it is NT-Xent (Chen et al. 2020, arXiv 2002.05709).
    """
    unit = F.normalize(features)
    sharp = unit / temperature
    labels = labels.contiguous()  # searchsorted warns of gaps
    ranked = labels.sort().values
    first = torch.searchsorted(ranked, labels)  # where its class begins: a number for each class below B
    others = torch.searchsorted(ranked, labels, right=True) - first - 1
    sums = torch.zeros_like(unit).index_add(0, first, unit).index_select(0, first) - unit
    positive = torch.linalg.vecdot(sharp, sums) / others.clamp_min(1)
    return torch.where(others > 0, _log_sums_beside(sharp, unit) - positive, 0.0)


def _log_sums_beside(rows: Tensor, columns: Tensor) -> Tensor:
    """log sum_{a != i} exp(rows_i columns_a), (B,), a block of rows at a time: memory that comes fresh takes longer."""
    height = max(1, BLOCK // len(rows))
    sums = []
    for first in range(0, len(rows), height):
        logits = rows[first : first + height] @ columns.T
        # The least number, not -inf, which less itself is NaN. Unseen by autograd: its share and its gradient are zero.
        logits.detach().diagonal(first).fill_(torch.finfo(logits.dtype).min)
        most = logits.detach().amax(1, keepdim=True)
        sums.append(logits.sub_(most).exp_().sum(1).log() + most[:, 0])
    return torch.cat(sums)
