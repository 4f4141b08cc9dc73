"""DropBlock: set contiguous blocks of feature maps to zero, so that a region cannot be read off its neighbours."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.inserted import At, Inserted, check_places
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked, linear
from tikhon.core.target import Target

RISING = linear(0.0, 0.1)


def seed_rate(sizes: tuple[int, ...], blocks: tuple[int, ...], p: float | Tensor) -> float | Tensor:
    """gamma = p / prod(blocks) * prod(sizes / (sizes - blocks + 1)), the chance of a block at each place where one fits
    (Ghiasi et al. 2018, arXiv 1810.12890, eq. 1).

    sizes, blocks: of the spatial axes, in pixels, no block longer than its axis; p: the share of pixels to drop, in
    [0, 1]. As many are dropped as long as blocks do not overlap: fewer for a large p.

    >>> seed_rate((8, 8), (4, 4), 0.1)
    0.016
    """
    places = [n - b + 1 for n, b in zip(sizes, blocks, strict=True)]
    return p / math.prod(blocks) * (math.prod(sizes) / math.prod(places))


def in_blocks(seeds: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Where a block lies that begins at a seed: 1 there, and 0 elsewhere.

    seeds: (B, C, ...), zeros and ones at the places n - b + 1 of each axis where a block fits. Returns (B, C, ...) with
    n places, all blocks whole.

    >>> in_blocks(torch.tensor([[[0.0, 1.0, 0.0]]]), (2,))
    tensor([[[0., 1., 1., 0.]]])
    """
    covered = F.pad(seeds, [width for b in reversed(blocks) for width in (b - 1, b - 1)])
    for axis, block in enumerate(blocks, start=2):
        reach = 1  # doubled as often as fits: log b comparisons an axis, where max pooling makes b * b
        while reach < block:
            shift = min(reach, block - reach)
            length = covered.shape[axis] - shift
            covered = torch.maximum(covered.narrow(axis, 0, length), covered.narrow(axis, shift, length))
            reach += shift
    return covered


class DropBlock(Method):
    """Set blocks of feature maps to zero while training, and scale what is left up.

    Use it in convolutional networks that are trained long. Not on maps much smaller than the block, where whole
    channels vanish (then use `SpatialDropout`), nor in short training.

        A <- A * M * count(M) / count_ones(M),   blocks of b x b zeros in M, begun with chance gamma at each place,
        gamma = p / b^2 * n^2 / (n - b + 1)^2 for maps of n x n

    M is drawn for every channel of every sample; signals (B, C, L), images and volumes. at: after which modules, names
    or globs of the parts of names ("layer4.*"); the paper takes the last two groups of a ResNet, convolutions and skip
    connections; block_size: b, in places of the map, cut to it; p: the share of places dropped, in [0, 1]; it rises
    linearly from 0 to 0.1 over training by default, as in the paper. Evaluation and the exported model are plain.

    Cost: one draw and about 2 log2(b) comparisons a place. Masks come from torch's global generator, as those of
    `nn.Dropout2d` do.
    Reference: Ghiasi, Lin, Le 2018, arXiv 1810.12890.

    >>> recipe = tikhon.Recipe(tikhon.DropBlock(at=("layer3", "layer4"), p=tikhon.linear(0.0, 0.1)))
    """

    card = Card(
        title="DropBlock: A regularization method for convolutional networks",
        authors="Ghiasi, Lin, Le",
        year=2018,
        arxiv="1810.12890",
        problems=("overfitting",),
        formula=r"\gamma = \frac{p}{b^2}\frac{n^2}{(n-b+1)^2},\quad A \leftarrow A \odot M\, |M| / \textstyle\sum M",
        claim="Beats dropout, spatial dropout and Cutout on ImageNet, and helps detection and segmentation.",
        helps="Large feature maps, long training, a drop rate that rises slowly.",
        hurts="Maps smaller than the block, short training.",
        cost="A draw and a few comparisons for each place of the maps.",
        neutral="p=0",
        example="at='2', block_size=3, p=0.1",
    )
    slots = {"prepare": "gate", "batch": "augment", "export": "merge"}
    exempt = {
        "accumulation": "every micro-batch draws masks of its own, and is scaled by their count",
        "permutation": "masks belong to places in the batch",
        "reproducible": "masks come from the global generator, as those of nn.Dropout2d do",
    }

    def __init__(self, at: At, block_size: int = 7, p: Strength = RISING) -> None:
        super().__init__()
        if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
            raise TikhonError(f"block_size must be a positive integer, the side of a block, not {block_size!r}.")
        self.p = checked("p", p, low=0.0, high=1.0)
        self.block_size = block_size
        self.at = at
        self._layers = Inserted(self._drop)

    def check(self, model: nn.Module) -> None:
        check_places(model, self.at, self.key)

    def prepare(self, model: nn.Module) -> None:
        self._layers.place(model, self.at, self.key)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._layers.set(self.p, target, step)
        return inputs, target

    def _drop(self, features: Tensor, p: float | Tensor) -> Tensor:
        sizes = tuple(features.shape[2:])
        if not sizes:
            raise TikhonError(
                f"{self.key} drops blocks of maps (B, C, L), (B, C, H, W) or (B, C, D, H, W), not of "
                f"{tuple(features.shape)}: name another module with at=, or use Dropout."
            )
        blocks = tuple(min(self.block_size, size) for size in sizes)
        places = [n - b + 1 for n, b in zip(sizes, blocks, strict=True)]
        draws = torch.rand(*features.shape[:2], *places, device=features.device)
        kept = 1.0 - in_blocks((draws < seed_rate(sizes, blocks, p)).float(), blocks)
        # In float32: half precision does not count as far. Where nothing is kept there is nothing to scale.
        return features * (kept * (kept.numel() / kept.sum().clamp_min(1.0))).to(features.dtype)

    def export(self, model: nn.Module) -> nn.Module:
        self._layers.remove()
        return model
