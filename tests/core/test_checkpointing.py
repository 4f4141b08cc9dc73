"""Gradient checkpointing: what is computed twice counts once, for taps, extra passes and second passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tikhon import EMA, SAM, Method, MixUp, Recipe, TikhonError
from tikhon.core.terms import Term

from .common import CARD, Remembering, mlp, ready, rows, same, train, weights


class Checkpointed(nn.Module):
    """Two layers of which the first, with dropout, is computed again in the backward pass, or not."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.body, self.reentrant = mlp(), reentrant
        self.dropout = nn.Dropout(0.5)

    def _first(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dropout(self.body[0](x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None or not self.training:
            return self.body[2](self._first(x))
        x = x.clone().requires_grad_()  # without it the older kind finds nothing to differentiate
        return self.body[2](checkpoint(self._first, x, use_reentrant=self.reentrant))


class Pulls(Method):
    """Pulls a feature, that of an extra pass too, towards zero."""

    card = CARD

    def taps(self, model: nn.Module) -> list[str]:
        return ["body.0"]

    def terms(self, output: Tensor, target: Any, step: Any) -> Any:
        _, extra = step.forward_with_taps(2.0 * step.inputs)
        features = step.tap("body.0").output, extra["body.0"].output
        return {self.key: Term(sum(one.square().mean(1) for one in features), 1.0)}


def trained(reentrant: bool | None, *methods: Method) -> list[Tensor]:
    recipe = Recipe(*methods)
    model, optimizer = ready(recipe, Checkpointed(reentrant))
    torch.manual_seed(0)
    train(recipe, optimizer, 3)
    return [*weights(model), *recipe.methods["ema"].averages().values()]


def test_it_trains_as_without_checkpointing() -> None:
    assert same(trained(False, *every()), trained(None, *every()))
    assert not same(trained(False, *every()), trained(False, *every()[1:]))


def every() -> list[Method]:
    return [Pulls(), Remembering(), MixUp(), SAM(0.1), EMA(0.5)]


def test_the_older_kind_trains_too_what_needs_no_features() -> None:
    methods = Remembering(), MixUp(), EMA(0.5)
    assert same(trained(True, *methods), trained(None, *methods))


def test_features_without_gradient_are_refused() -> None:
    recipe = Recipe(Pulls())
    ready(recipe, Checkpointed(True))
    with pytest.raises(TikhonError, match="use_reentrant=False"):
        recipe.loss(*rows())


def test_second_passes_that_would_see_a_part_of_the_gradient_are_refused() -> None:
    recipe = Recipe(SAM(0.1))
    model, _ = ready(recipe, Checkpointed(True))
    before = weights(model)
    with pytest.raises(TikhonError, match=r"sam needs gradients .* use_reentrant=False"):
        recipe.loss(*rows())
    assert same(weights(model), before)


def test_features_of_a_part_that_is_frozen_are_recorded() -> None:
    class Frozen(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self._first(x)
            return self.body[2](features)

    recipe = Recipe(Pulls())
    ready(recipe, Frozen(None))
    recipe.loss(*rows()).backward()
