"""A recurrent network whose gradients explode: the model on which the clipping of gradients is tried."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.data import Task

WIDTH = 32


class _Last(nn.Module):
    """ReLU units read a signal (B, 1, L) value by value; the last state goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.RNN(1, WIDTH, nonlinearity="relu", batch_first=True)
        with torch.no_grad():  # keeps what it reads, as in Le, Jaitly, Hinton 2015, arXiv 1504.00941
            self.cells.get_parameter("weight_hh_l0").copy_(torch.eye(WIDTH))

    def forward(self, signal: Tensor) -> Tensor:
        states: Tensor = self.cells(signal.transpose(1, 2))[0]
        return states[:, -1]


def network(task: Task) -> nn.Module:
    """Forty steps of a recurrent network of 32 units, and a classifier."""
    return nn.Sequential(_Last(), nn.Linear(WIDTH, task.outputs))


def rates(recipe: str) -> list[dict[str, object]]:
    return [{"recipe": recipe, "learning_rate": rate} for rate in (0.001, 0.01, 0.1)]
