"""Networks of typical sizes that several families of cases train."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def perceptron(bias: bool = True) -> nn.Module:
    """64-256-256-10, for batches of vectors."""
    return nn.Sequential(
        nn.Linear(64, 256, bias), nn.ReLU(), nn.Linear(256, 256, bias), nn.ReLU(), nn.Linear(256, 10, bias)
    )


def small_cnn() -> nn.Module:
    """Two convolutions and a linear layer, for images 3 x 16 x 16."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, features: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)))))
        return F.relu(changed + self.shortcut(features))


class ResNet20(nn.Module):
    """He et al. 2016 for CIFAR, 65 parameters of 0.27 million numbers at width 16, 17.2 million at 128."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        inside, layers = width, []
        for group in range(3):
            for number in range(3):
                outside = width * 2**group
                layers.append(_Block(inside, outside, 2 if group and not number else 1))
                inside = outside
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(inside, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layers(F.relu(self.bn1(self.conv1(images))))
        return self.linear(features.mean((2, 3)))


def with_gradients(model: nn.Module) -> nn.Module:
    """The model with a random gradient in every parameter."""
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def training(
    model: nn.Module, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer
) -> Callable[[], Tensor]:
    """A training step as one writes it by hand; returns the loss."""

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
