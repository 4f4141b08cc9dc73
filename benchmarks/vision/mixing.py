"""Mixed batches beside timm and torchvision: the transform of a batch, and the loss of a given output on its targets.

Ours are the functions of the methods with draws as the methods make them; what a recipe costs around them is measured
with training steps. Ours keeps the caller's batch and mixes labels without making them dense; timm writes into the
batch, and both peers make targets dense.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper

import numpy as np
import torch
from timm.data.mixup import Mixup, cutmix_bbox_and_lam
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

import tikhon as tk
from benchmarks.harness import Pair, case
from tikhon.core.losses import weighted_losses
from tikhon.math.random import beta
from tikhon.methods.mixing.cutmix import Box, cut_box, cutmix, share_outside
from tikhon.methods.mixing.mixup import mixup

IN_PLACE = "timm writes into the batch, ours keeps it"
SIZES = (((128, 3, 32, 32), 10), ((64, 3, 224, 224), 1000))
Answer = tuple[Tensor, ...]
Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def in_both_sizes(name: str, peer: str, note: str = "") -> Callable[[Callable[..., Pair]], Callable[..., Pair]]:
    """Make the function below, which builds a pair for a batch in its setting, two cases of the table."""

    def keep(pair: Callable[..., Pair]) -> Callable[..., Pair]:
        for shape, classes in SIZES:
            size = f"{' x '.join(map(str, shape))}, {classes} classes"
            built = update_wrapper(lambda shape=shape, classes=classes: pair(Setting(shape, classes)), pair)
            case(f"{name} and its loss, {size}", peer=peer, note=note)(built)
        return pair

    return keep


class Setting:
    """A batch, the output that is given for it, and the answers of both sides: inputs, loss, gradient of the output."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        self.inputs, self.labels = torch.randn(shape), torch.randint(classes, shape[:1])
        self.output = torch.randn(shape[0], classes, requires_grad=True)
        self.shape, self.classes = shape, classes
        self.generator = torch.Generator().manual_seed(0)

    def peer(self, transform: Transform, criterion: Callable[[Tensor, Tensor], Tensor]) -> Answer:
        mixed, target = transform(self.inputs, self.labels)
        return self._answer(mixed, criterion(self.output, target))

    def ours(self, mixed: Tensor, permutation: Tensor, share: float | Tensor) -> Answer:
        target = tk.Target.of(self.labels).mix(permutation, share)
        if target.alike:  # as the objective of a recipe does
            return self._answer(mixed, tk.ClassLoss().mean_of(self.output, target))
        losses, _ = weighted_losses(tk.ClassLoss(), self.output, target, all_count=True)
        return self._answer(mixed, losses.mean())

    def _answer(self, mixed: Tensor, loss: Tensor) -> Answer:
        self.output.grad = None
        loss.backward()
        return mixed, loss.detach(), self.output.grad

    def mixup(self) -> Answer:
        return self.mixed_up(self.partners(), beta(1.0, self.generator))

    def mixed_up(self, permutation: Tensor, share: float | Tensor) -> Answer:
        return self.ours(mixup(self.inputs, permutation, share), permutation, share)

    def cutmix(self) -> Answer:
        sizes = self.shape[2:]
        share, draws = beta(1.0, self.generator), torch.rand(2, generator=self.generator).tolist()
        box = cut_box(sizes, share, [size * draw for size, draw in zip(sizes, draws, strict=True)])
        return self.cut(self.partners(), box)

    def cut(self, permutation: Tensor, box: Box) -> Answer:
        return self.ours(cutmix(self.inputs, permutation, box), permutation, share_outside(self.shape[2:], box))

    def partners(self) -> Tensor:
        return torch.randperm(self.shape[0], generator=self.generator)

    def timms_partners(self) -> Tensor:
        return torch.arange(self.shape[0]).flip(0)

    def torchvisions_partners(self) -> Tensor:
        return torch.arange(self.shape[0]).roll(1)


def seed_timm() -> None:
    np.random.seed(0)  # noqa: NPY002, timm draws from this generator


def agree(ours: Answer, theirs: Answer) -> bool:
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in zip(ours, theirs, strict=True))


@in_both_sizes("MixUp", peer="timm", note=IN_PLACE)
def timm_mixup(setting: Setting) -> Pair:
    transform = Mixup(label_smoothing=0.0, num_classes=setting.classes)
    theirs = partial(setting.peer, transform, SoftTargetCrossEntropy())

    def same() -> bool:
        seed_timm()
        share, _ = transform._params_per_batch()
        ours = setting.mixed_up(setting.timms_partners(), share)
        seed_timm()
        return agree(ours, theirs())

    return Pair(setting.mixup, theirs, same=same)


@in_both_sizes("MixUp by sample", peer="timm", note=IN_PLACE)
def timm_mixup_by_sample(setting: Setting) -> Pair:
    transform = Mixup(mode="elem", label_smoothing=0.0, num_classes=setting.classes)
    theirs = partial(setting.peer, transform, SoftTargetCrossEntropy())
    shares = torch.distributions.Beta(1.0, 1.0)

    def ours(permutation: Tensor, share: Tensor) -> Answer:
        mixed = mixup(setting.inputs, permutation, share[:, None, None, None])
        return setting.ours(mixed, permutation, share)

    def same() -> bool:
        seed_timm()
        mine = ours(setting.timms_partners(), torch.from_numpy(transform._params_per_elem(setting.shape[0])[0]))
        seed_timm()
        return agree(mine, theirs())

    return Pair(lambda: ours(setting.partners(), shares.sample(setting.shape[:1])), theirs, same=same)


@in_both_sizes("MixUp", peer="torchvision")
def torchvision_mixup(setting: Setting) -> Pair:
    transform = v2.MixUp(num_classes=setting.classes)
    theirs = partial(setting.peer, transform, F.cross_entropy)

    def same() -> bool:
        torch.manual_seed(1)
        share = transform.make_params([setting.inputs])["lam"]
        ours = setting.mixed_up(setting.torchvisions_partners(), share)
        torch.manual_seed(1)
        return agree(ours, theirs())

    return Pair(setting.mixup, theirs, same=same)


@in_both_sizes("CutMix", peer="timm", note=IN_PLACE)
def timm_cutmix(setting: Setting) -> Pair:
    transform = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=setting.classes)
    theirs = partial(setting.peer, transform, SoftTargetCrossEntropy())

    def same() -> bool:
        seed_timm()
        (top, bottom, left, right), _ = cutmix_bbox_and_lam(setting.shape, transform._params_per_batch()[0])
        ours = setting.cut(setting.timms_partners(), (slice(int(top), int(bottom)), slice(int(left), int(right))))
        seed_timm()
        return agree(ours, theirs())

    return Pair(setting.cutmix, theirs, same=same)


@in_both_sizes("CutMix", peer="torchvision")
def torchvision_cutmix(setting: Setting) -> Pair:
    transform = v2.CutMix(num_classes=setting.classes)
    theirs = partial(setting.peer, transform, F.cross_entropy)

    def same() -> bool:
        torch.manual_seed(1)
        left, top, right, bottom = transform.make_params([setting.inputs])["box"]
        ours = setting.cut(setting.torchvisions_partners(), (slice(top, bottom), slice(left, right)))
        torch.manual_seed(1)
        return agree(ours, theirs())

    return Pair(setting.cutmix, theirs, same=same)
