"""Cross-entropy of softened and mixed labels beside timm's, backward included."""

from __future__ import annotations

import torch
from timm.data.mixup import mixup_target
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor

import tikhon as tk
from benchmarks.harness import Pair, case

SIZES = {"128 x 10": (128, 10), "128 x 1000": (128, 1000), "64 x 32000": (64, 32_000)}
cross_entropy = tk.ClassLoss()


def outputs(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rows, classes = size
    return torch.randn(size, requires_grad=True), torch.randint(classes, (rows,))


def gradient(loss: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    return loss, torch.autograd.grad(loss, scores)[0]


for name, size in SIZES.items():

    @case(f"label smoothing, {name}", peer="timm")
    def smoothing(size: tuple[int, int] = size) -> Pair:
        scores, labels = outputs(size)
        peer = LabelSmoothingCrossEntropy(0.1)
        return Pair(
            lambda: gradient(cross_entropy.mean_of(scores, tk.Target.of(labels).smooth(0.1)), scores),
            lambda: gradient(peer(scores, labels), scores),
        )

    @case(f"soft cross-entropy, {name}", peer="timm")
    def soft(size: tuple[int, int] = size) -> Pair:
        scores, _ = outputs(size)
        probabilities, peer = torch.randn(size).softmax(1), SoftTargetCrossEntropy()
        return Pair(
            lambda: gradient(cross_entropy.mean(scores, probabilities), scores),
            lambda: gradient(peer(scores, probabilities), scores),
        )

    @case(f"MixUp's loss with label smoothing, {name}", peer="timm", note="The peer makes the targets dense.")
    def mixed(size: tuple[int, int] = size) -> Pair:
        scores, labels = outputs(size)
        classes, backwards, peer = size[1], torch.arange(len(labels)).flip(0), SoftTargetCrossEntropy()
        return Pair(
            lambda: gradient(
                cross_entropy.mean_of(scores, tk.Target.of(labels).smooth(0.1).mix(backwards, 0.3)), scores
            ),
            lambda: gradient(peer(scores, mixup_target(labels, classes, 0.3, 0.1)), scores),
        )
