"""Terms of variational and contrastive losses that models with a latent space share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    that is alone in its class. Where the label of each of two views is their sample, it is NT-Xent (Chen et al. 2020,
    arXiv 2002.05709).
    """
    unit = F.normalize(features)
    logits = unit / temperature @ unit.T
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    # The least number, not -inf: that times the share 0 of oneself would be NaN.
    log_p = logits.masked_fill(itself, torch.finfo(logits.dtype).min).log_softmax(1)
    alike = (labels[:, None] == labels) & ~itself
    shares = alike / alike.sum(1, keepdim=True).clamp_min(1)
    return -(log_p * shares.to(log_p.dtype)).sum(1)
