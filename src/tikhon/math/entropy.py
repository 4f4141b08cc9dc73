"""Entropy: how undecided predictions are."""

from __future__ import annotations

from torch import Tensor


def softmax_entropy(scores: Tensor) -> Tensor:
    """-sum_k p_k log p_k of p = softmax(scores) over dimension 1, in nats: (B, K, ...) -> (B, ...), in [0, log K].

    >>> softmax_entropy(torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    tensor([0.6931, 0.1909])
    """
    log_probabilities = scores.log_softmax(1)
    return -(log_probabilities.exp() * log_probabilities).sum(1)
