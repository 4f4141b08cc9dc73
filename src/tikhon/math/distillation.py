"""Distillation: a network asked to predict what another one does."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def distillation_losses(scores: Tensor, teacher_scores: Tensor, temperature: float = 1.0) -> Tensor:
    """-T^2 sum_k p_k log q_k of every sample, p = softmax(teacher / T), q = softmax(scores / T).

    scores, teacher_scores: (B, K); temperature: T, positive. Returns (B,), at least T^2 times the entropy of p, from
    which it differs by T^2 KL(p || q). Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531.

    >>> distillation_losses(torch.zeros(1, 2), torch.zeros(1, 2))
    tensor([0.6931])
    """
    asked = F.softmax(teacher_scores / temperature, dim=1)
    return -(temperature**2) * (asked * F.log_softmax(scores / temperature, dim=1)).sum(1)


def softmax_divergence(scores: Tensor, other_scores: Tensor) -> Tensor:
    """KL(p || q) of every sample, p = softmax(scores), q = softmax(other_scores) over dimension 1, in nats.

    scores, other_scores: (B, K, ...). Returns (B,), at least 0; positions inside a sample are added up. Gradients flow
    through both.

    >>> softmax_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.1201])
    """
    log_p, log_q = F.log_softmax(scores, dim=1), F.log_softmax(other_scores, dim=1)
    return (log_p.exp() * (log_p - log_q)).flatten(1).sum(1)
