"""Log-probabilities of sequences, from which preferences are learned."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def sequence_log_probabilities(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """log p(labels) of every sequence: the log-probabilities of its counted tokens, added up.

    logits: (B, T, V), for the token at the same place (shift them before, if they are for the next); labels: (B, T) in
    [0, V); counted: (B, T) bool, True for the answer's tokens, neither prompt nor padding. Returns (B,).

    >>> sequence_log_probabilities(torch.zeros(1, 2, 4), torch.tensor([[1, 3]]), torch.tensor([[True, False]]))
    tensor([-1.3863])
    """
    found = F.log_softmax(logits, dim=-1).gather(-1, labels[..., None])[..., 0]
    return (found * counted).sum(-1)
