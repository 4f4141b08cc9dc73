"""Augmentations whose strength a self-tuning network tunes: noise, squares cut out, mixtures of pairs."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from tikhon.core.batches import first_tensor, mix_inputs
from tikhon.core.errors import TikhonError
from tikhon.core.target import Target
from tikhon.math.boxes import erased, inside_boxes
from tikhon.methods.mixing.adamixup import mixed_by_row
from tikhon.tuning.effects import Effect, Setting, Values
from tikhon.tuning.hyperparameters import Count


class TunedNoise(Effect):
    """Normal noise of standard deviation `scale` on floating-point inputs, in units of the inputs."""

    bounds: ClassVar = {"scale": (0.0, math.inf)}

    def __init__(self, scale: Setting, name: str = "noise") -> None:
        super().__init__(name, scale=scale)

    def batch(self, inputs: Any, target: Target, values: Values, generator: torch.Generator) -> tuple[Any, Target]:
        def noisy(x: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
            return x + values["scale"].reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype) * noise

        return mix_inputs(noisy, inputs, self.name), target


class TunedCutout(Effect):
    """Squares of every signal, image or volume set to zero: `holes` of them, with `side` as a share of each axis.

    Either may be tuned: `Rate(0.25)` and, as the whole number that it is, `Count(1, high=3)`. A square's centre lies
    anywhere; what lies beyond the border is lost.
    """

    bounds: ClassVar = {"side": (0.0, 1.0), "holes": (0.0, 64.0)}

    def __init__(self, side: Setting, holes: Setting = 1, name: str = "cutout") -> None:
        super().__init__(name, side=side, holes=holes)
        if not isinstance(holes, (Count, int)):
            raise TikhonError(f"{name}: holes is a whole number, given or tuned as a Count, not {holes!r}.")
        self._most = holes.high if isinstance(holes, Count) else holes

    def batch(self, inputs: Any, target: Target, values: Values, generator: torch.Generator) -> tuple[Any, Target]:
        first = first_tensor(inputs)
        sizes, device = tuple(first.shape[2:]), first.device
        if not sizes:
            raise TikhonError(
                f"{self.name} erases squares of signals (B, C, L), images (B, C, H, W) or volumes, not of inputs of "
                f"shape {tuple(first.shape)}. Reshape them, or leave it out."
            )
        size = torch.tensor(sizes, dtype=torch.float32).to(device, non_blocking=True)
        centres = size * torch.rand(len(first), self._most, len(sizes), generator=generator, device=device)
        sides = values["side"].float()[:, None, None] * size.expand_as(centres)
        inside = inside_boxes(sizes, centres.flatten(0, 1), sides.flatten(0, 1))
        chosen = torch.arange(self._most, device=device) < values["holes"][:, None]
        inside = inside.unflatten(0, (len(first), self._most)) & chosen.reshape(*chosen.shape, *[1] * len(sizes))
        mask = inside.any(1)
        return mix_inputs(lambda x: erased(x, mask, 0.0), inputs, self.name), target


class TunedMixUp(Effect):
    """Convex combinations of pairs of samples and of their targets, the share from Beta(alpha, alpha) of the sample."""

    bounds: ClassVar = {"alpha": (0.0, math.inf)}

    def __init__(self, alpha: Setting, name: str = "mixup") -> None:
        super().__init__(name, alpha=alpha)

    def batch(self, inputs: Any, target: Target, values: Values, generator: torch.Generator) -> tuple[Any, Target]:
        alpha = values["alpha"].double()
        permutation = torch.randperm(len(alpha), generator=generator, device=alpha.device)
        # Beta by two gammas in the log domain, as `tikhon.math.random.beta` says.
        gamma = torch._standard_gamma(alpha.expand(2, -1) + 1.0, generator=generator)
        uniform = torch.rand(gamma.shape, generator=generator, dtype=gamma.dtype, device=gamma.device)
        first, second = gamma.log() + uniform.log() / alpha.clamp_min(1e-300)
        share = torch.sigmoid(first - second).where(alpha > 0.0, 1.0).to(values["alpha"].dtype)
        mixed = mix_inputs(lambda x: mixed_by_row(x, permutation, share), inputs, self.name)
        return mixed, target.mix(permutation, share)
