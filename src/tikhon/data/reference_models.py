"""Networks on which cost is measured: a residual one, a transformer and a neural ordinary differential equation."""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.data.task import Task


def resnet20(task: Task) -> nn.Module:
    """Three stages of three residual blocks of 16, 32 and 64 channels (He et al. 2016, arXiv 1512.03385, section 4.2).

    Shortcuts that change the shape are convolutions of size 1 (option B). 0.27 million weights.
    """
    channels = _channels(task, "resnet20", 4)
    blocks = [
        _Residual(inputs if first else outputs, outputs, stride if first else 1)
        for inputs, outputs, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        for first in (True, False, False)
    ]
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, task.outputs),
    )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def transformer(task: Task) -> nn.Module:
    """Four layers of width 64 and four heads on patches of 2x2 pixels (4x4 above 16), then the mean over positions.

    Pre-norm and without dropout, as vision transformers are trained (Dosovitskiy et al. 2021, arXiv 2010.11929).
    """
    channels = _channels(task, "transformer", 4)
    height, width = task.input_shape[1:]
    return _Transformer(channels, height, width, 2 if max(height, width) <= 16 else 4, task.outputs)


class _Transformer(nn.Module):
    def __init__(self, channels: int, height: int, width: int, patch: int, outputs: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, 64, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn((height // patch) * (width // patch), 64))
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(4))
        )
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.layers(tokens)).mean(1))  # type: ignore[no-any-return]


def ode(task: Task) -> nn.Module:
    """A flow of 32 features between two linear layers; its field has one hidden layer of 64."""
    from tikhon.blocks.structure.neural_ode import NeuralODE  # an entry of the catalogue, loaded when it is used

    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(task.input_shape), 32),
        NeuralODE(_Field(), rtol=1e-3, atol=1e-3),
        nn.Linear(32, task.outputs),
    )


class _Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(33, 64)
        self.second = nn.Linear(64, 32)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(torch.cat([y, t[:, None]], 1))))  # type: ignore[no-any-return]


def _channels(task: Task, model: str, least: int) -> int:
    shape = task.input_shape
    if task.kind != "classes" or len(shape) != 3 or min(shape[1:]) < least:
        raise TikhonError(
            f"the model {model} classifies images (channels, height, width), each side at least {least}; {task.name} "
            f"has {task.kind} to predict from inputs of shape {shape}. Use mlp"
        )
    return shape[0]
