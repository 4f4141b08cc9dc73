"""Nested dropout: keep the first k features, k at random, so that features come in order of importance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tikhon.core.batches import call
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import find_module, last_linear
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def kept_distribution(features: int, scale: float, centre: float = 0.0, device: torch.device | None = None) -> Tensor:
    """p(k) proportional to exp(-((k - centre) / scale)^2) for k = 1..features (Chen et al. 2022, arXiv 2206.13140).

    scale, centre: in features, scale positive; there is no 1/2 in the exponent of the official code, so that the scale
    is sqrt(2) standard deviations. Returns (features,), float64, sums to 1.

    >>> kept_distribution(3, scale=2.0)
    tensor([0.6220, 0.2938, 0.0842], dtype=torch.float64)
    """
    k = torch.arange(1, features + 1, dtype=torch.float64, device=device)
    return torch.softmax(-(((k - centre) / scale) ** 2), dim=0)


def keep_first(features: Tensor, kept: int | Tensor) -> Tensor:
    """Zero all but the first `kept` features, without rescaling. features: (..., D); kept: an integer, or () tensor.

    >>> keep_first(torch.ones(1, 4), 2)
    tensor([[1., 1., 0., 0.]])
    """
    return features * (torch.arange(features.shape[-1], device=features.device) < kept)


def accuracy_by_kept(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Accuracy of a linear classifier that sees the first k features, for every k = 1..D at once.

    The scores for all k are the cumulative sums of h_j w_j over j: the arithmetic of one pass, not of D.
    features: (N, D); labels: (N,); weight: (K, D); bias: (K,) or None. Returns (D,), in [0, 1]. Needs N * D * K numbers
    of memory: give it a few thousand samples at a time.

    >>> accuracy_by_kept(torch.tensor([[1.0, -3.0]]), torch.tensor([0]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    tensor([1., 0.])
    """
    scores = (features[:, :, None] * weight.T).cumsum(1)
    if bias is not None:
        scores = scores + bias
    return (scores.argmax(2) == labels[:, None]).to(scores.dtype).mean(0)


class NestedDropout(Method):
    """Keep only the first k features before the classifier, one random k for the whole batch.

    Use it against wrong labels, and to get features that can be cut off at any length. Evaluation uses all features
    unless `keep` is set, as the paper does to the best k on validation data: `method.keep = method.best_keep(...)`.

        k ~ p(k),  p(k) ~ exp(-((k - centre) / scale)^2),   h <- (h_1, ..., h_k, 0, ..., 0)

    scale, centre: of the distribution, in features; a scale far above the number of features is milder (10 to 100 of
    512 in the official runs, centre 0); at: the module whose input is cut, the last `nn.Linear` by default; keep: how
    many features evaluation uses. `export` then writes zeros into the columns of that layer that it does not use, and
    nothing becomes smaller: what computes the features is not known to be a layer that could be cut too.

    Cost: one multiplication of the features. Reference: Chen, Hu, Shen, Ai, Suykens 2022, arXiv 2206.13140; the idea is
    Rippel, Gelbart, Adams 2014, arXiv 1402.0915.

    >>> recipe = tikhon.Recipe(tikhon.NestedDropout(scale=100.0))
    """

    card = Card(
        title="Compressing Features for Learning with Noisy Labels",
        authors="Chen, Hu, Shen, Ai, Suykens",
        year=2022,
        arxiv="2206.13140",
        problems=("noisy-labels", "overfitting", "compression"),
        formula=r"h \leftarrow (h_1,\dots,h_k,0,\dots,0),\quad p(k)\propto e^{-((k-\mu)/s)^2}",
        claim="Compressed features resist wrong labels; comparable with the state of the art on real-world noise.",
        helps="Wrong labels; codes to be truncated later.",
        hurts="Narrow layers, where most draws leave too little.",
        cost="One multiplication of the features.",
        neutral="scale=1e-6, centre=1e6",  # all of the probability on the last k: nothing is cut
    )
    slots = {"prepare": "gate", "batch": "augment", "export": "prune"}
    exempt = {"accumulation": "every micro-batch draws its own number of features"}

    def __init__(
        self, scale: Strength = 100.0, centre: Strength = 0.0, at: str | None = None, keep: int | None = None
    ) -> None:
        super().__init__()
        self.scale = checked("scale", scale, low=1e-6)
        self.centre = checked("centre", centre)
        self.at = at
        self.keep = keep
        self.drawn: Tensor | None = None  # on the device: reading it would wait
        self._handle: RemovableHandle | None = None
        self._width = 0

    def check(self, model: nn.Module) -> None:
        at = self.at or last_linear(model, self.key)
        gated = find_module(model, at, self.key)
        if not isinstance(gated, nn.Linear):
            raise TikhonError(f"{self.key} cuts the input of an nn.Linear; {at!r} is {type(gated).__name__}.")
        if self.keep is not None and not 1 <= self.keep <= gated.in_features:
            raise TikhonError(f"keep must be between 1 and {gated.in_features} features, not {self.keep}.")

    def prepare(self, model: nn.Module) -> None:
        self.at = self.at or last_linear(model, self.key)
        gated = model.get_submodule(self.at)
        self._width = int(gated.in_features)  # type: ignore[arg-type]
        self._handle = gated.register_forward_pre_hook(self._cut)

    def _cut(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        kept = self.drawn if module.training else self.keep
        return None if kept is None else (keep_first(args[0], kept), *args[1:])

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        device = target.value.device
        chances = kept_distribution(self._width, step.value(self.scale), step.value(self.centre), device)
        self.drawn = torch.multinomial(chances, 1, generator=step.generator(device))[0] + 1
        return inputs, target

    def best_keep(self, model: nn.Module, inputs: Any, labels: Tensor) -> int:
        """The number of features with the best accuracy on validation data, the smallest where several are best.

        model: the prepared model, in eval mode; inputs: a batch of N, as the model takes it; labels: (N,).
        """
        if model.training:
            raise TikhonError("best_keep needs the model in eval mode: call model.eval() before.")
        gated = model.get_submodule(self.at or last_linear(model, self.key))
        seen: list[Tensor] = []
        # Before the method's own hook, which may cut already.
        watch = gated.register_forward_pre_hook(lambda _, args: seen.append(args[0]), prepend=True)
        try:
            with torch.no_grad():
                call(model, inputs)
                accuracy = accuracy_by_kept(seen[0], labels, gated.weight, gated.bias)  # type: ignore[arg-type]
        finally:
            watch.remove()
        return int((accuracy == accuracy.max()).nonzero()[0]) + 1

    def export(self, model: nn.Module) -> nn.Module:
        assert self._handle is not None, "export follows prepare"
        self._handle.remove()
        if self.keep is not None:
            weight = model.get_submodule(self.at or "").get_parameter("weight")
            with torch.no_grad():
                weight[:, self.keep :].zero_()
        return model
