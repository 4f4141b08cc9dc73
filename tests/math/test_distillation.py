"""Distillation against torch's own soft cross-entropy."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tikhon.math.distillation import distillation_losses


def test_it_is_torchs_soft_cross_entropy_times_the_squared_temperature() -> None:
    new, old = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = 4.0 * F.cross_entropy(new / 2.0, (old / 2.0).softmax(1), reduction="none")
    torch.testing.assert_close(distillation_losses(new, old, 2.0), expected)


def test_its_gradient_at_temperature_one_is_the_difference_of_probabilities() -> None:
    new = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    old = torch.tensor([[1.0, 0.0, 0.5]])
    (gradient,) = torch.autograd.grad(distillation_losses(new, old).sum(), new)
    torch.testing.assert_close(gradient, (new.softmax(1) - old.softmax(1)).detach())
