"""Supervised contrast where every label is a pair's: NT-Xent, written out."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tikhon.math.variational import supervised_contrast


def test_labels_that_are_samples_make_it_nt_xent() -> None:
    views = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = supervised_contrast(views, torch.arange(3).repeat(2), 0.5)
    z = F.normalize(views)
    for i in range(6):
        partner, others = (i + 3) % 6, [a for a in range(6) if a != i]
        similar = torch.stack([z[i] @ z[a] / 0.5 for a in others])
        torch.testing.assert_close(found[i], similar.logsumexp(0) - z[i] @ z[partner] / 0.5)


def test_the_only_sample_costs_nothing() -> None:
    one = torch.ones(1, 3, requires_grad=True)
    loss = supervised_contrast(one, torch.tensor([0]))
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert one.grad is not None
    assert not one.grad.any()
