"""A model whose scores are parameters, so that the gradient of a loss with respect to its scores can be read off."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FreeLogits(nn.Module):
    """The scores of `rows` samples; the input says which of them are asked for."""

    def __init__(self, rows: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(rows, classes, dtype=torch.float64))

    def forward(self, rows: Tensor) -> Tensor:
        return self.logits[rows]

    def set(self, logits: Tensor) -> Tensor:
        """Give the first rows these scores; returns the input that asks for them."""
        with torch.no_grad():
            self.logits[: len(logits)] = logits
        return torch.arange(len(logits))
