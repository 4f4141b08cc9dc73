"""DR-Tune: fine-tuning whose classifier must also be right on the features of the pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.parameters import find_module, last_linear
from tikhon.core.passes import frozen_copy
from tikhon.core.queue import Queue
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32


def rotated(x: Tensor, y: Tensor) -> Tensor:
    """The rows of x, centred and rotated onto those of y: R (x - mean x), R the proper rotation of least squares.

    x, y: (N, D), row n of one belongs to row n of the other. Returns (N, D), in float32 at least, with mean 0. Source:
    Kabsch 1976; from S = sum_n x_n y_n^T of the centred rows, S = U diag(s) V^T, R = V diag(1, .., 1, det V U^T) U^T.

    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> rotated(x, x @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).round().abs()
    tensor([[0., 1.],
            [0., 1.],
            [2., 0.],
            [2., 0.]])
    """
    x, y = (at_least_float32(rows) for rows in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    u, _, v = torch.linalg.svd(x.T @ y)
    flip = torch.cat([v.new_ones(len(v) - 1), torch.det(u @ v)[None]])
    turned: Tensor = x @ (u @ (flip[:, None] * v))
    return turned


def calibrated(
    pretrained: Tensor, downstream: Tensor, labels: Tensor, head: Tensor, scale: Tensor, rotate: bool = True
) -> Tensor:
    """Pretrained features without the drift of fine-tuning (Zhou, Chen, Huang 2023, arXiv 2308.12058).

    Rows are normalised; the pretrained ones are rotated onto the downstream ones; those of every class are shifted so
    that their mean is the class's downstream centre, in which a row weighs exp(cos(row, head_c)); then they get the
    length `scale`.

    pretrained, downstream: (K, D), features of the same samples; labels: (K,), rows of no class are not shifted; head:
    (C, D), the classifier's weight; scale: a scalar; rotate: False leaves out the rotation. Returns (K, D).
    """
    moved, seen = (F.normalize(at_least_float32(rows), dim=1) for rows in (pretrained, downstream))
    if rotate:
        moved = rotated(moved, seen)
    members = (labels[:, None] == torch.arange(len(head), device=labels.device)).to(moved.dtype)
    confidence = torch.exp(seen @ F.normalize(head.to(seen.dtype), dim=1).T) * members
    centres = confidence.T @ seen / confidence.sum(0).clamp_min(1e-12)[:, None]
    means = members.T @ moved / members.sum(0).clamp_min(1.0)[:, None]
    return F.normalize(moved + members @ (centres - means), dim=1) * scale


class DRTune(Method):
    """Fine-tune freely, but keep the classifier right on what the pretrained encoder sees.

    Use it to fine-tune a pretrained network on few samples: the classifier cannot rely on what the new encoder makes up
    for them, and the encoder itself is not held back. Give the recipe the pretrained model: a frozen copy is taken when
    it is prepared. Not for training from scratch, nor where the pretrained features say nothing about the task.

        loss = task + strength mean_k CE(head(z_k), y_k),   z: the queue's pretrained features, calibrated

    strength: at least 0, 1 in the paper; size: K, of the queue of features; every: in how many steps once the rotation
    is found and applied; the official code has 10, for speed; pooled: one mean over the B samples of the batch and the
    K of the queue, strength times each of the latter, as in the official code; at: the classifier, an `nn.Linear` on
    features (B, D), the last one by default. The queue begins empty and fills as training goes on; the official code
    fills it before. Under mixing a row is of the class that is most of it.

    Cost: a forward pass of the frozen copy, an SVD of D x D and two products of K rows with D x D where it rotates, and
    the classifier on K rows.
    Reference: Zhou, Chen, Huang 2023, arXiv 2308.12058.

    >>> recipe = tikhon.Recipe(tikhon.DRTune(strength=1.0, size=512))
    """

    card = Card(
        title="DR-Tune: Improving Fine-tuning of Pretrained Visual Models by Distribution Regularization with Semantic "
        "Calibration",
        authors="Zhou, Chen, Huang",
        year=2023,
        arxiv="2308.12058",
        problems=("overfitting", "forgetting"),
        formula=r"L = \mathrm{task} + \lambda\,\tfrac1K\sum_k \mathrm{CE}(h(\hat z_k), y_k)",
        claim="Better fine-tuning for many backbones and ways of pretraining, on image classification.",
        helps="Few samples, and a pretrained encoder whose features are good for the task.",
        hurts="Pretrained features that say nothing about the task.",
        cost="A forward pass of a frozen copy, an SVD of D x D where it rotates, the classifier on K rows.",
    )
    slots = {"prepare": "replace"}
    needs = frozenset({"classes"})
    exempt = {
        "accumulation": "the pretrained features get the mean length of the features of one batch",
        "shards": "the head is applied outside of the model's own pass, where its weights are parts",
    }

    def __init__(
        self,
        strength: Strength = 1.0,
        size: int = 2048,
        every: int = 1,
        pooled: bool = False,
        at: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("size", size), ("every", every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TikhonError(f"{name} must be a positive integer, not {value!r}.")
        self.strength = checked("strength", strength, low=0.0)
        self.every, self.pooled, self.at = every, pooled, at
        self.queue = Queue(size)
        self.frozen: nn.Module | None = None
        self._place = ""  # of the classifier, from `prepare` on: no step searches for it

    def check(self, model: nn.Module) -> None:
        place = self.at or last_linear(model, self.key)
        if not isinstance(find_module(model, place, self.key), nn.Linear):
            raise TikhonError(f"{self.key} needs a linear classifier, and {place!r} is none: name it with at=.")

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (self._place,)

    def prepare(self, model: nn.Module) -> None:
        self._place = self.at or last_linear(model, self.key)
        self.frozen = frozen_copy(model)

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        if step.value(self.strength) == 0.0:
            return
        labels = target.dominant
        labels = labels.argmax(1) if labels.is_floating_point() else labels
        downstream, pretrained = self._features(output, step), self._pretrained_features(step)
        self.queue.push(at_least_float32(pretrained), at_least_float32(downstream), labels)

    def _features(self, output: Tensor, step: Step) -> Tensor:
        """What goes into the classifier, (B, D); of several masks a sample, the mean."""
        features: Tensor = step.tap(self._place).input
        if features.ndim != 2:
            raise TikhonError(f"{self.key} needs features (B, D) at its classifier, not {tuple(features.shape)}.")
        return features.reshape(-1, len(output), features.shape[1]).mean(0)

    @torch.no_grad()
    def _pretrained_features(self, step: Step) -> Tensor:
        assert self.frozen is not None, "terms follow prepare"
        found: list[Tensor] = []
        head = self.frozen.get_submodule(self._place)
        handle = head.register_forward_pre_hook(lambda _, args: found.append(args[0]))
        try:
            step.output(self.frozen, step.inputs)
        finally:
            handle.remove()
        return found[0]

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        strength = step.value(self.strength)
        if strength == 0.0 or not len(self.queue):
            return {}
        head = step.model.get_submodule(self._place)
        assert isinstance(head, nn.Linear)
        pretrained, downstream, labels = self.queue.rows
        with torch.no_grad():
            scale = at_least_float32(self._features(output, step)).norm(dim=1).mean()
            rotate = step.number % self.every == 0
            rows = calibrated(pretrained, downstream, labels, head.weight, scale, rotate).to(head.weight.dtype)
        loss = _mean_loss(F.linear(rows, head.weight, head.bias), Target.of(labels), step)
        if not self.pooled:
            return {"pretrained": Term(loss, self.strength, per_sample=False)}
        share = strength * len(labels) / (len(output) + strength * len(labels))
        return {"pretrained": Term(loss - _mean_loss(output, target, step), share, per_sample=False)}


def _mean_loss(output: Tensor, target: Target, step: Step) -> Tensor:
    losses, mass = weighted_losses(step.loss, output, target)
    return losses.mean() if mass is None else losses.sum() / mass.sum().clamp_min(1e-12)
