"""Which samples go where, with every class represented as it is in the whole."""

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError


def draw(target: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `size` samples without replacement, and the others: two sorted tensors of indices.

    target: (B,) int64 labels, each class keeps its share (largest remainders, at least one sample of every class);
    floating values are drawn uniformly.
    """
    order = torch.randperm(len(target), generator=generator)
    if target.is_floating_point():
        return order[:size].sort().values, order[size:].sort().values
    labels = target[order]
    quota = _quotas(torch.bincount(target), size)
    # The place of each sample within its class, in the drawn order: the first `quota` of each class are taken.
    place = torch.zeros_like(labels)
    for label in range(len(quota)):
        members = labels == label
        place[members] = torch.arange(int(members.sum()))
    taken = place < quota[labels]
    return order[taken].sort().values, order[~taken].sort().values


def _quotas(counts: Tensor, size: int) -> Tensor:
    """How many of each class: proportional, summing to `size`, at least one each."""
    if size < len(counts):
        raise TikhonError(f"{size} samples cannot represent {len(counts)} classes; take more samples")
    ideal = counts.double() * (size / int(counts.sum()))
    quota = ideal.floor().clamp(min=1)
    while quota.sum() < size:
        quota[(ideal - quota).argmax()] += 1
    while quota.sum() > size:
        quota[(ideal - quota).masked_fill(quota == 1, torch.inf).argmin()] -= 1
    return quota.long()
