"""Cross-entropy of softened and mixed labels beside torch's own, backward included."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

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

    @case(f"label smoothing, {name}", peer="torch")
    def smoothing(size: tuple[int, int] = size) -> Pair:
        scores, labels = outputs(size)
        return Pair(
            lambda: gradient(cross_entropy.mean_of(scores, tk.Target.of(labels).smooth(0.1)), scores),
            lambda: gradient(F.cross_entropy(scores, labels, label_smoothing=0.1), scores),
        )

    @case(f"MixUp's loss, {name}", peer="torch", note="The peer adds two cross-entropies.")
    def mixed(size: tuple[int, int] = size) -> Pair:
        scores, labels = outputs(size)
        partners = torch.randperm(len(labels))
        return Pair(
            lambda: gradient(cross_entropy.mean_of(scores, tk.Target.of(labels).mix(partners, 0.3)), scores),
            lambda: gradient(
                0.3 * F.cross_entropy(scores, labels) + 0.7 * F.cross_entropy(scores, labels[partners]), scores
            ),
        )

    @case(f"MixUp's loss with label smoothing, {name}", peer="torch", note="The peer adds two cross-entropies.")
    def mixed_and_smoothed(size: tuple[int, int] = size) -> Pair:
        scores, labels = outputs(size)
        partners = torch.randperm(len(labels))
        smooth = partial(F.cross_entropy, label_smoothing=0.1)
        return Pair(
            lambda: gradient(
                cross_entropy.mean_of(scores, tk.Target.of(labels).smooth(0.1).mix(partners, 0.3)), scores
            ),
            lambda: gradient(0.3 * smooth(scores, labels) + 0.7 * smooth(scores, labels[partners]), scores),
        )

    @case(f"labels and a teacher's probabilities, {name}", peer="torch")
    def taught(size: tuple[int, int] = size) -> Pair:
        scores, labels = outputs(size)
        teacher, classes = torch.randn(size).softmax(1), size[1]

        def ours() -> Tensor:
            taught = tk.Target.of(labels).distil(lambda part: teacher, 0.5, classes)
            return cross_entropy.mean(scores, taught.value)

        def theirs() -> Tensor:
            return F.cross_entropy(scores, 0.5 * F.one_hot(labels, classes) + 0.5 * teacher)

        return Pair(lambda: gradient(ours(), scores), lambda: gradient(theirs(), scores))
