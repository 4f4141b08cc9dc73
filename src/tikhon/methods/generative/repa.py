"""Representation alignment: a generative model whose hidden features are drawn to those of a good encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import find_module
from tikhon.core.step import Step, seed_for
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms

PROJECTOR = tuple(f"repa_projector_{kind}{layer}" for layer in (1, 2, 3) for kind in ("weight", "bias"))
"""Parameters of the model itself: a module would be called by a model that calls all its modules in turn."""


def misalignment(projected: Tensor, features: Tensor) -> Tensor:
    """-mean_n cos(z_n, y_n) of every sample (Yu et al. 2024, arXiv 2410.06940).

    projected: (B, N, D), hidden tokens through the projector; features: (B, N, D), the encoder's for the clean sample.
    Returns (B,), in [-1, 1]. The length of a vector does not matter; a zero vector has cosine 0.

    >>> misalignment(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 0.0]]]))
    tensor([-0.6000])
    """
    return -(F.normalize(projected, dim=-1) * F.normalize(features, dim=-1)).sum(-1).mean(1)


def interpolant(
    x: Tensor, noise: Tensor, t: Tensor, path: Literal["linear", "cosine"] = "linear"
) -> tuple[Tensor, Tensor]:
    """The noisy sample at time t and the velocity that a flow model is to predict there.

        x_t = alpha_t x + sigma_t eps,   v_t = alpha'_t x + sigma'_t eps

    linear: alpha = 1 - t, sigma = t; cosine: alpha = cos(pi t / 2), sigma = sin(pi t / 2). x, noise: (B, ...); t: (B,)
    in [0, 1], 0 is the data. Returns x_t and v_t, (B, ...).
    """
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    if path == "linear":
        return (1.0 - t) * x + t * noise, noise - x
    if path == "cosine":
        half = math.pi / 2
        cosine, sine = torch.cos(half * t), torch.sin(half * t)
        return cosine * x + sine * noise, half * (cosine * noise - sine * x)
    raise TikhonError(f"A path is 'linear' or 'cosine', not {path!r}.")


class REPA(Method):
    """Draw the hidden tokens of a diffusion or flow model to the features of a frozen, pretrained encoder.

    Use it to train generative models in fewer steps, where an encoder knows the data well. Give the encoder's features
    of the clean training samples, computed once: they are looked up by sample id. Not where no encoder fits the data,
    and not on late blocks, which need their features for detail.

        loss = task + strength mean_i -mean_n cos(y_in, MLP(h_in))

    features: (samples, N, D), or (samples, D) for one token a sample, on any device; at: the block whose output
    (B, N, size) is aligned, (B, size) for one token: an early one, 8 of 28 in the paper; size: its width; strength: at
    least 0, 0.5 by default; width: of the projector's two hidden layers, 2048 in the paper. The projector trains with
    the model, as parameters `repa_projector_*` of it, and is gone after export.

    Cost: the projector, and reading the features. Needs sample ids.
    Reference: Yu, Kwak, Jang, Jeong, Huang, Shin, Xie 2024, arXiv 2410.06940.

    >>> features = torch.randn(100, 16, 64)  # 100 samples of 16 patches
    >>> method = tikhon.REPA(features, at="blocks.1", size=32)
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think",
        authors="Yu, Kwak, Jang, Jeong, Huang, Shin, Xie",
        year=2024,
        arxiv="2410.06940",
        problems=("speed",),
        formula=r"L = L_v - \lambda\,\tfrac1N\sum_n\cos(y_n, \mathrm{MLP}(h_n))",
        claim="Trains a diffusion transformer more than 17.5 times faster to the same quality.",
        helps="Generative models, and an encoder that knows the data.",
        hurts="Features of another domain; late blocks.",
        cost="A projector of three layers, and reading the stored features.",
    )
    slots = {"prepare": "tap", "export": "merge"}
    needs = frozenset({"ids"})

    def __init__(self, features: Tensor, at: str, size: int, strength: Strength = 0.5, width: int = 2048) -> None:
        super().__init__()
        if not isinstance(features, Tensor) or features.ndim not in (2, 3) or not features.is_floating_point():
            raise TikhonError("features must be a floating-point tensor (samples, N, D), or (samples, D).")
        if size < 1 or width < 1:
            raise TikhonError(f"size and width must be at least 1, not {size} and {width}.")
        self.strength = checked("strength", strength, low=0.0)
        self.at, self.size, self.width = at, size, width
        self.features = features.detach()  # neither saved nor moved: the data belong to the caller

    def check(self, model: nn.Module) -> None:
        find_module(model, self.at, self.key)
        if hasattr(model, PROJECTOR[0]):
            raise TikhonError(f"{self.key}: the model has a projector already; one recipe aligns one block.")

    def taps(self, model: nn.Module) -> list[str]:
        return [self.at]

    def prepare(self, model: nn.Module) -> None:
        like = next(model.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.key, "projector"))
            sizes = [self.size, self.width, self.width, self.features.shape[-1]]
            layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
        leaves = [leaf for layer in layers for leaf in (layer.weight, layer.bias)]
        for name, leaf in zip(PROJECTOR, leaves, strict=True):
            model.register_parameter(name, nn.Parameter(leaf.detach().to(like)))

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        tokens = step.tap(self.at).output
        if tokens.shape[-1] != self.size or tokens.ndim != self.features.ndim:
            raise TikhonError(
                f"{self.key}: {self.at!r} gives features {tuple(tokens.shape)}, which do not fit size={self.size} and "
                f"stored features {tuple(self.features.shape)}."
            )
        projected = _projected(tokens, [getattr(step.model, name) for name in PROJECTOR])
        wanted = target.lookup(lambda ids: self.features[ids.to(self.features.device)].to(projected))
        if wanted.shape != projected.shape:
            raise TikhonError(
                f"{self.key}: {tuple(projected.shape[1:-1])} tokens of {self.at!r} do not fit "
                f"{tuple(wanted.shape[1:-1])} of the stored features."
            )
        one = projected.ndim == 2
        value = misalignment(projected[:, None], wanted[:, None]) if one else misalignment(projected, wanted)
        return {"alignment": Term(value, self.strength)}

    def export(self, model: nn.Module) -> nn.Module:
        for name in PROJECTOR:
            delattr(model, name)
        return model


def _projected(tokens: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """The MLP of three layers: weight and bias of each in `leaves`."""
    first = F.silu(F.linear(tokens, *leaves[:2]))
    return F.linear(F.silu(F.linear(first, *leaves[2:4])), *leaves[4:])
