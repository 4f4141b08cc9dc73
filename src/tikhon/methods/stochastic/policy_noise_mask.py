"""Policy-gradient noise masks: multiply each image by a random mask that a small network learns to draw for it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.step import Step, seed_for
from tikhon.core.strength import Strength, checked, stepwise
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms

HIDDEN = 64
"""Width of the policy's hidden layer."""
COMMON, MOMENTUM = 0.9, 0.99
"""How much of log a and log b is their running mean over all images, and how slowly that moves."""
LIMIT = 4.0
"""What |log a| and |log b| stay below, so that no mask becomes certain."""
PRETRAINING = stepwise({0.0: 1.0, 0.9: 0.0})
"""Masks for nine tenths of training, then clean images."""

POLICY = tuple(f"policy_noise_mask_{kind}{layer}" for layer in (1, 2) for kind in ("weight", "bias"))
"""Parameters of the model itself: a module would be called by a model that calls all its modules in turn."""


def beta_log_density(mask: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """log Beta(m; a, b) = (a - 1) log m + (b - 1) log(1 - m) - log B(a, b), elementwise.

    mask: in (0, 1); alpha, beta: positive, of the same shape. Returns that shape.

    >>> beta_log_density(torch.tensor([0.5]), torch.tensor([2.0]), torch.tensor([2.0]))
    tensor([0.4055])
    """
    normaliser = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    return (alpha - 1.0) * mask.log() + (beta - 1.0) * torch.log1p(-mask) - normaliser


def policy_losses(log_density: Tensor, costs: Tensor) -> Tensor:
    """(c - mean c) log pi(m | x) of every sample, whose gradient is REINFORCE's for the reward -c (Williams 1992).

    log_density: (B,), of the masks drawn; costs: (B,), what they led to, detached. Returns (B,).

    >>> policy_losses(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, 1.0]))
    tensor([-1.,  2.])
    """
    return (costs - costs.mean()) * log_density


def spread(mask: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """A coarse mask (B, cells...) interpolated to the sizes of the image's axes: (B, 1, sizes...).

    >>> spread(torch.tensor([[0.0, 1.0]]), (4,))
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    mode = ("linear", "bilinear", "trilinear")[len(sizes) - 1]
    return F.interpolate(mask[:, None], size=sizes, mode=mode, align_corners=False)


class PolicyNoiseMask(Method):
    """Multiply images by coarse random masks, drawn for each by a small network that learns which ones help.

    Use it to pretrain a classifier of images. Masks act for nine tenths of training; the rest is fine-tuning on clean
    images, without which the network has seen dim ones only. Not for short training.

        m ~ Beta(a, b) in each cell,  log (a, b) = 0.9 mean + 0.1 policy(x),  x <- x (1 - s (1 - m))
        policy's loss = (c - mean c) log Beta(m; a, b),  c the sample's loss
        mean <- 0.99 mean + 0.01 policy(x), once a step, in each process

    strength: s in [0, 1], how much of the mask acts; 1 until nine tenths of training by default, then 0; grid: how many
    cells each spatial axis has: (4, 4) for images, (8,) for signals; the official runs have (64, 64) on 224 pixels.

    Here the policy is a hidden layer of 64 on the image averaged over channels and cells, and the mean cost of the
    batch is its baseline. The official code takes a small residual network, no baseline, the logarithm of the sum of
    the cells' densities instead of the sum of their logarithms, multiplies the classifier's loss by that too, and blurs
    masks that are interpolated here. The policy trains with the model, as parameters `policy_noise_mask_*` of it, and
    is gone after export.

    Cost: the policy. Reference: Yavuz, Yang 2024, arXiv 2406.14568.

    >>> recipe = tikhon.Recipe(tikhon.PolicyNoiseMask(grid=(4, 4)))
    """

    card = Card(
        title="Policy Gradient-Driven Noise Mask",
        authors="Yavuz, Yang",
        year=2024,
        arxiv="2406.14568",
        problems=("overfitting", "shift"),
        formula=r"\nabla_\theta J = \mathbb{E}(R - \bar R)\nabla_\theta \log p_\theta(m \mid x),\ m \sim \mathrm{Beta}",
        claim="Pretraining under learned masks, then fine-tuning, beats plain training on RadImageNet and in transfer.",
        helps="Long pretraining on heterogeneous images.",
        hurts="Short training, and inputs that are no images or signals.",
        cost="A small policy network.",
        neutral="strength=0",
    )
    slots = {"prepare": "tap", "batch": "augment", "after_step": "average", "export": "merge"}
    exempt = {
        "accumulation": "every micro-batch draws masks of its own",
        "permutation": "masks are drawn by place in the batch",
        "shards": "the policy's weights are read outside of the model's own pass, where they are parts",
    }

    def __init__(self, strength: Strength = PRETRAINING, grid: tuple[int, ...] = (4, 4)) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0, high=1.0)
        if not (isinstance(grid, tuple) and 1 <= len(grid) <= 3 and all(isinstance(n, int) and n > 0 for n in grid)):
            raise TikhonError(f"grid must be one to three positive numbers of cells, such as (4, 4), not {grid!r}.")
        self.grid = grid
        self.common: Tensor
        self.register_buffer("common", torch.full((2 * math.prod(grid),), 0.5))
        self.drawn: tuple[Tensor, Tensor] | None = None  # what the policy saw, (B, cells), and the masks that it drew

    def check(self, model: nn.Module) -> None:
        if hasattr(model, POLICY[0]):
            raise TikhonError(f"{self.key}: the model has a policy already; one recipe learns one.")

    def prepare(self, model: nn.Module) -> None:
        cells, like = math.prod(self.grid), next(model.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.key, "policy"))
            hidden, scores = (nn.Linear(*pair) for pair in pairwise([cells, HIDDEN, 2 * cells]))
        nn.init.zeros_(scores.weight)
        nn.init.constant_(scores.bias, 0.5)  # at first alike for all images, one half on average
        leaves = [leaf for layer in (hidden, scores) for leaf in (layer.weight, layer.bias)]
        for name, leaf in zip(POLICY, leaves, strict=True):
            model.register_parameter(name, nn.Parameter(leaf.detach().to(like)))

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        strength = step.value(self.strength)
        self.drawn = None
        if strength == 0.0:
            return inputs, target
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim != 2 + len(self.grid):
            found = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TikhonError(
                f"{self.key} masks images (B, C, ...) with as many spatial axes as grid={self.grid} has, not {found}."
            )
        with torch.no_grad():
            seen = _pooled(inputs, self.grid).to(next(step.model.parameters()))
            alpha, beta = self._shapes(seen, step)
            mask = _draw(alpha, beta, step.generator(inputs.device))
            self.drawn = seen, mask
            whole = spread(mask.reshape(-1, *self.grid), tuple(inputs.shape[2:])).to(inputs.dtype)
        return inputs * (1.0 - strength * (1.0 - whole)), target

    def _policy(self, seen: Tensor, step: Step) -> Tensor:
        leaves = [getattr(step.model, name) for name in POLICY]
        return F.linear(F.relu(F.linear(seen, *leaves[:2])), *leaves[2:])

    def _shapes(self, seen: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """a and b of every cell, (B, cells) each."""
        logs = COMMON * self.common + (1.0 - COMMON) * self._policy(seen, step)  # under autocast of two types: no lerp
        alpha, beta = (LIMIT * torch.tanh(logs / LIMIT)).exp().chunk(2, dim=1)
        return alpha, beta

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if self.drawn is None:
            return {}
        seen, mask = self.drawn
        # Computed again, not kept with its graph: a second pass needs a graph of its own.
        log_density = beta_log_density(mask, *self._shapes(seen, step)).sum(1)
        losses, mass = weighted_losses(step.loss, output.detach(), target)
        costs = losses if mass is None else losses / mass.clamp_min(1e-12)
        return {"policy": Term(policy_losses(log_density, costs.to(log_density)))}

    def after_step(self, model: nn.Module, step: Step) -> None:
        if self.drawn is not None:
            self.common.lerp_(self._policy(self.drawn[0], step).mean(0).to(self.common), 1.0 - MOMENTUM)

    def export(self, model: nn.Module) -> nn.Module:
        for name in POLICY:
            delattr(model, name)
        self.drawn = None
        return model


def _pooled(inputs: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The image averaged over channels and cells, (B, cells)."""
    pool: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(grid) - 1]
    pooled: Tensor = pool(inputs.mean(1, keepdim=True), grid)
    return pooled.flatten(1)


def _draw(alpha: Tensor, beta: Tensor, generator: torch.Generator) -> Tensor:
    """Beta(alpha, beta), elementwise, kept off 0 and 1 where the density has no logarithm."""
    # Gamma(a) is Gamma(a + 1) U^(1 / a), in logarithms: small shapes would underflow (Marsaglia and Tsang 2000).
    shapes = torch.stack([alpha, beta])
    gamma = torch._standard_gamma(shapes + 1.0, generator=generator)
    uniform = torch.rand(shapes.shape, generator=generator, dtype=shapes.dtype, device=shapes.device)
    logs = gamma.log() + uniform.log() / shapes
    return torch.sigmoid(logs[0] - logs[1]).clamp(1e-6, 1.0 - 1e-6)
