"""Nested dropout: keep the first k features, k at random, so that features come in order of importance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import find_module, last_linear
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def kept_distribution(features: int, scale: float, centre: float = 0.0, device: torch.device | None = None) -> Tensor:
    """p(k) proportional to exp(-((k - centre) / scale)^2) for k = 1..features (Chen et al. 2022, arXiv 2206.13140).

    scale, centre: in features; note that there is no 1/2 in the exponent. Returns (features,), float64, sums to 1.
    """
    k = torch.arange(1, features + 1, dtype=torch.float64, device=device)
    return torch.softmax(-(((k - centre) / scale) ** 2), dim=0)


def keep_first(features: Tensor, kept: int | Tensor) -> Tensor:
    """Zero all but the first `kept` features, without rescaling. features: (..., D); kept: an integer, or () tensor.

    >>> keep_first(torch.ones(1, 4), 2)
    tensor([[1., 1., 0., 0.]])
    """
    return features * (torch.arange(features.shape[-1], device=features.device) < kept)


class NestedDropout(Method):
    """Keep only the first k features before the classifier, one random k for the whole batch.

    Use it against wrong labels, and to get features that can be cut off at any length. Evaluation uses all features
    unless `keep` is set, for example to the best k on validation data; then `export` keeps just these.

        k ~ p(k),  p(k) ~ exp(-((k - centre) / scale)^2),   h <- (h_1, ..., h_k, 0, ..., 0)

    scale, centre: of the distribution, in features; a scale far above the number of features is milder; at: the module
    whose input is cut, the last `nn.Linear` by default; keep: how many features evaluation uses.

    Cost: one multiplication of the features. Reference: Chen, Shen, Hu, Suykens 2022, arXiv 2206.13140; the idea is
    Rippel, Gelbart, Adams 2014.

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
        neutral="",
    )
    slots = {"prepare": "gate", "batch": "augment", "export": "prune"}
    exempt = {
        "neutral": "every distribution leaves features out now and then",
        "accumulation": "every micro-batch keeps a number of features of its own",
    }

    def __init__(
        self, scale: Strength = 100.0, centre: Strength = 0.0, at: str | None = None, keep: int | None = None
    ) -> None:
        super().__init__()
        self.scale = checked("scale", scale, low=1e-6)
        self.centre = checked("centre", centre)
        self.at = at
        self.keep = keep
        self.drawn: Tensor | None = None
        self._handle: RemovableHandle | None = None
        self._width = 0

    def check(self, model: nn.Module) -> None:
        gated = find_module(model, self.at or last_linear(model, self.key), self.key)
        if not isinstance(gated, nn.Linear):
            raise TikhonError(f"{self.key} cuts the input of an nn.Linear; {self.at!r} is {type(gated).__name__}.")
        if self.keep is not None and not 1 <= self.keep <= gated.in_features:
            raise TikhonError(f"keep must be between 1 and {gated.in_features} features, not {self.keep}.")

    def prepare(self, model: nn.Module) -> None:
        self.at = self.at or last_linear(model, self.key)
        gated = model.get_submodule(self.at)
        self._width = int(gated.in_features)  # type: ignore[arg-type]
        self._handle = gated.register_forward_pre_hook(self._cut)

    def _cut(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if module.training:
            return None if self.drawn is None else (keep_first(args[0], self.drawn), *args[1:])
        return None if self.keep is None else (keep_first(args[0], self.keep), *args[1:])

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        device = target.value.device
        chances = kept_distribution(self._width, step.value(self.scale), step.value(self.centre), device)
        self.drawn = torch.multinomial(chances, 1, generator=step.generator(device))[0] + 1
        return inputs, target

    def export(self, model: nn.Module) -> nn.Module:
        assert self._handle is not None, "export follows prepare"
        self._handle.remove()
        if self.keep is not None:
            weight = model.get_submodule(self.at or "").get_parameter("weight")
            with torch.no_grad():
                weight[:, self.keep :].zero_()
        return model
