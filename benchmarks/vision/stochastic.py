"""Stochastic depth and DropBlock beside timm and torchvision, in training, backward included."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import DropBlock2d, DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DropBlock2d as TorchvisionDropBlock2d
from torchvision.ops import StochasticDepth

import tikhon as tk
from benchmarks.harness import Pair, case

BLOCKS, CHANNELS, P = 6, 32, 0.5
REPETITIONS = 40


class Branch(nn.Module):
    """The convolutions of a residual block, and what may drop their answer."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(CHANNELS) for _ in range(2))
        self.drop = drop

    def forward(self, features: Tensor) -> Tensor:
        return self.drop(self.norms[1](self.second(F.relu(self.norms[0](self.first(features))))))


class Residual(nn.Module):
    """features + branch(features), as often as there are branches, and a classifier."""

    def __init__(self, drops: Callable[[float], nn.Module]) -> None:
        super().__init__()
        rates = [number / BLOCKS * P for number in range(1, BLOCKS + 1)]
        self.branches = nn.ModuleList(Branch(drops(rate)) for rate in rates)
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, features: Tensor) -> Tensor:
        for branch in self.branches:
            features = features + branch(features)
        return self.head(features.mean((2, 3)))


def depth(mode: str, drops: Callable[[float], nn.Module]) -> Pair:
    """Forward and backward of six residual blocks, 32 x 32 x 8 x 8; the last is left out in half of the draws."""
    features, labels = torch.randn(32, CHANNELS, 8, 8), torch.randint(10, (32,))
    model, plain = Residual(drops), Residual(lambda rate: nn.Identity())
    plain.load_state_dict(model.state_dict())
    recipe = tk.Recipe(tk.StochasticDepth(at="branches.*", p=P, branch=True, mode=mode))
    recipe.prepare(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.0)
    recipe.attach(optimizer)

    def ours() -> Tensor:
        loss = recipe.loss(features, labels)
        loss.backward()
        recipe._run.clock.number += 1  # as a step of the optimizer would, for other draws
        return loss.detach()

    def theirs() -> Tensor:
        loss = F.cross_entropy(model(features), labels)
        loss.backward()
        return loss.detach()

    def same() -> bool:
        """Losses are drawn: their means agree within four standard errors of the difference."""
        mine, others = (torch.stack([call() for _ in range(REPETITIONS)]) for call in (ours, theirs))
        error = (mine.var() / len(mine) + others.var() / len(others)).sqrt()
        return bool((mine.mean() - others.mean()).abs() < 4.0 * error)

    return Pair(ours, theirs, same=same)


@case("stochastic depth by batch, 6 blocks of 32 channels", peer="torchvision", note="ours leaves out the computation")
def by_batch() -> Pair:
    return depth("batch", lambda rate: StochasticDepth(rate, "batch"))


@case("stochastic depth by sample, 6 blocks of 32 channels", peer="torchvision")
def by_sample() -> Pair:
    return depth("row", lambda rate: StochasticDepth(rate, "row"))


@case("stochastic depth by sample, 6 blocks of 32 channels", peer="timm")
def timm_by_sample() -> Pair:
    return depth("row", DropPath)


def blocks(drop: nn.Module) -> Pair:
    """Dropped blocks of the features that a layer passes on, 128 x 64 x 16 x 16, forward and backward."""
    features = torch.randn(128, 64, 16, 16, requires_grad=True)
    layer = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(1, 1)).train()
    method = tk.DropBlock(at="0", block_size=7, p=0.1)
    tk.Recipe(method).prepare(layer)
    method._layers.rate = 0.1

    def answer(output: Tensor) -> tuple[Tensor, Tensor]:
        features.grad = None
        output.sum().backward()
        return output.detach(), features.grad

    def ours() -> tuple[Tensor, Tensor]:
        return answer(layer[0](features))

    def theirs() -> tuple[Tensor, Tensor]:
        return answer(drop(features))

    def same() -> bool:
        """The share that is dropped, in the mean of a few draws, and the scale of the rest, are torchvision's."""
        reference = TorchvisionDropBlock2d(0.1, 7).train()
        outputs = [[call() for _ in range(5)] for call in (lambda: ours()[0], lambda: reference(features).detach())]
        dropped = [torch.stack([(one == 0).float().mean() for one in some]).mean() for some in outputs]
        scales = [torch.stack([one.norm() / features.norm() for one in some]).mean() for some in outputs]
        return all(abs(float(mine / other) - 1.0) < 0.05 for mine, other in (dropped, scales))

    return Pair(ours, theirs, same=same)


@case("DropBlock, 128 x 64 x 16 x 16, blocks of 7", peer="timm", note="timm drops 0.18 where 0.1 is asked for")
def timm_blocks() -> Pair:
    return blocks(DropBlock2d(0.1, 7, couple_channels=False).train())


@case("DropBlock, 128 x 64 x 16 x 16, blocks of 7", peer="torchvision")
def torchvision_blocks() -> Pair:
    return blocks(TorchvisionDropBlock2d(0.1, 7).train())
