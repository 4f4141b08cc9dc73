"""Two interleaved spirals, and a field whose flow may tell them apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Field(nn.Module):
    """An MLP that gives the velocity, and counts how often it was asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, width))
        self.calls = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        velocity: Tensor = self.layers(y)
        return velocity


def spirals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two arms of one and a half turns each, with noise; points (count, 2) and which arm."""
    radius, arm = torch.rand(count, generator=generator).sqrt(), torch.arange(count) % 2
    angle = 3.0 * math.pi * radius + math.pi * arm
    points = 2.0 * radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return points + 0.1 * torch.randn(count, 2, generator=generator), arm
