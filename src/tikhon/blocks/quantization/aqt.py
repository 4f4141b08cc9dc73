"""Accurate quantised training: layers whose products are of small integers, in training as in deployment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError, near_misses
from tikhon.math.quantization import EPSILON, channel_scale, floor_to_unsigned, round_to_signed

__all__ = [
    "AQTQuantizer",
    "AQTConv2d",
    "AQTLinear",
    "Integers",
    "freeze_bounds",
    "integers_of",
    "quantize_aqt",
]

card = Card(
    title="Pareto-Optimal Quantized ResNet Is Mostly 4-bit",
    authors="Abdolrashidi, Wang, Agrawal, Malmaud, Rybakov, Leichner, Lew",
    year=2021,
    arxiv="2105.03536",
    problems=("compression", "speed", "overfitting"),
    formula=r"y = \frac1t\,\mathrm{clip}\lfloor s x\rceil\cdot\mathrm{clip}\lfloor t\,w/s\rceil,\quad "
    r"t = (2^{b-1}-1)/\max|w/s|",
    claim="Networks mostly of 4 bits are better than bfloat16 ones of the same cost, and their gap is smaller.",
    helps="Deployment where integers are cheap; choosing between a wider network and more bits.",
    hurts="Two bits and fewer; activations with rare, large values; networks too small already.",
    cost="A few elementwise operations on inputs and weights; training does not become faster.",
    neutral="",
    kind="block",
)

UPDATE = 0.1  # how fast the bounds of activations follow the batches until they are frozen


class Integers(NamedTuple):
    """A layer for integer arithmetic: y = (W q) / outputs + b with q the inputs times `inputs`, rounded and clipped."""

    weight: Tensor  # int8, (O, ...)
    inputs: Tensor  # scale of every input channel, (C,)
    outputs: Tensor  # scale of every output channel, (O,)


class AQTQuantizer(nn.Module):
    """Makes integers of the two operands of a layer: its weights at every pass, its inputs once bounds are frozen.

    Use it through `AQTLinear` and `AQTConv2d`, or let `quantize_aqt` put them into a model. Train as usual; at a few
    per cent of training (7 in the paper) call `freeze_bounds(model)`: until then inputs stay as they are, and the mean
    of the batches' largest absolute values is followed for every channel; from then on it is the bound, fixed.

        q = clip(round(s x)),  r = clip(round(t w / s)),  y = q r / t + b,  s = (2^(b-1) - 1) / bound

    The scales of the inputs go into the weights before these are rounded, so that a product is one of integers alone
    (`integers_of`). Gradients pass through the rounding, not through what was clipped, nor through scales.

    channels: of the inputs; bits: of both operands, 2 to 8; positive: inputs are never negative (after ReLU): unsigned
    integers, rounded down, s = 2^b / bound.

    Cost: a few elementwise operations. Reference: Abdolrashidi, Wang, Agrawal, Malmaud, Rybakov, Leichner, Lew 2021,
    arXiv 2105.03536, and its library, which leaves the scales of a convolution's inputs out of the weights.

    >>> import torch, tikhon
    >>> from tikhon.blocks.quantization.aqt import freeze_bounds, quantize_aqt
    >>> model = quantize_aqt(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 3)))
    >>> type(model[0].quantizer) is tikhon.AQTQuantizer
    True
    >>> output = model(torch.randn(16, 8))  # training goes on, until a few per cent of it are done
    >>> freeze_bounds(model)
    """

    def __init__(self, channels: int, bits: int = 4, positive: bool = False) -> None:
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
            raise TikhonError(f"bits must be an integer from 2 to 8, not {bits!r}.")
        self.bits, self.positive, self.frozen = bits, positive, False
        self.lowest: Tensor
        self.highest: Tensor
        self.register_buffer("lowest", torch.zeros(channels))
        self.register_buffer("highest", torch.zeros(channels))

    def forward(self, inputs: Tensor, weight: Tensor, axis: int, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """(q, r, t) of inputs with their channels at `axis` and of a weight (O, C / groups, ...); t: (O,)."""
        if self.frozen:
            scale = self.input_scale()
            shape = [1] * inputs.ndim
            shape[axis] = -1
            integers = floor_to_unsigned if self.positive else round_to_signed
            inputs = integers(inputs * scale.reshape(shape), self.bits)
            weight = weight / _by_weight(scale, weight, groups)
        elif self.training:
            self._follow(inputs.detach().movedim(axis, -1).flatten(0, -2))
        t = channel_scale(weight, self.bits)
        return inputs, round_to_signed(weight * t, self.bits), t.flatten()

    def input_scale(self) -> Tensor:
        """s of every input channel, (C,)."""
        bound = torch.maximum(self.lowest.abs(), self.highest.abs()) + EPSILON
        scale: Tensor = (2**self.bits if self.positive else 2 ** (self.bits - 1) - 1) / bound
        return scale

    def _follow(self, rows: Tensor) -> None:
        """Move towards the extremes of this batch; zeros, which ReLU and padding make, count for nothing."""
        for kept, found in (
            (self.highest, rows.where(rows != 0, -torch.inf).amax(0)),
            (self.lowest, rows.where(rows != 0, torch.inf).amin(0)),
        ):
            kept += UPDATE * (found - kept).where(found.isfinite(), 0.0).to(kept)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.frozen)

    def set_extra_state(self, state: Any) -> None:
        self.frozen = bool(state)


class AQTLinear(nn.Linear):
    """`nn.Linear` on integers; see `AQTQuantizer`."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, bits: int = 4, positive: bool = False
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.quantizer = AQTQuantizer(in_features, bits, positive)

    def forward(self, inputs: Tensor) -> Tensor:
        q, r, t = self.quantizer(inputs, self.weight, -1)
        product: Tensor = F.linear(q, r) / t
        return product if self.bias is None else product + self.bias


class AQTConv2d(nn.Conv2d):
    """`nn.Conv2d` on integers, with its arguments; see `AQTQuantizer`."""

    def __init__(self, *arguments: Any, bits: int = 4, positive: bool = False, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.quantizer = AQTQuantizer(self.in_channels, bits, positive)

    def forward(self, inputs: Tensor) -> Tensor:
        q, r, t = self.quantizer(inputs, self.weight, 1, self.groups)
        product: Tensor = self._conv_forward(q, r, None) / t[:, None, None]
        return product if self.bias is None else product + self.bias[:, None, None]


def quantize_aqt(
    model: nn.Module, bits: int | Mapping[str, int] = 4, ends: int = 8, positive: Collection[str] = ()
) -> nn.Module:
    """Make an AQT layer of every `nn.Linear` and `nn.Conv2d` of a model, in place; returns the model.

    bits: of all but the first and the last, which have `ends`; or by name, for these alone; positive: layers whose
    inputs are never negative. Before the optimizer, or after training (then train some batches through and freeze).
    """
    kinds = {nn.Linear: AQTLinear, nn.Conv2d: AQTConv2d}
    layers: dict[str, Any] = {name: module for name, module in model.named_modules() if type(module) in kinds}
    widths = bits if isinstance(bits, Mapping) else dict.fromkeys(layers, ends) | dict.fromkeys([*layers][1:-1], bits)
    if (unknown := sorted({*positive, *widths} - set(layers))) or not layers:
        hint = near_misses(unknown[0], layers) if unknown else ""
        raise TikhonError(f"{type(model).__name__} has no plain nn.Linear or nn.Conv2d {', '.join(unknown)}. {hint}")
    channels = {name: layer.weight.shape[1] * getattr(layer, "groups", 1) for name, layer in layers.items()}
    made = {name: AQTQuantizer(channels[name], own, name in positive) for name, own in widths.items()}
    for name, quantizer in made.items():  # the layer itself becomes one: whoever holds it or its parameters still does
        layers[name].__class__ = kinds[type(layers[name])]
        layers[name].quantizer = quantizer.to(layers[name].weight)
    return model


def freeze_bounds(model: nn.Module) -> None:
    """From now on the inputs of every AQT layer are integers, within the bounds that were seen."""
    quantizers = [module for module in model.modules() if isinstance(module, AQTQuantizer)]
    if not quantizers:
        raise TikhonError(f"{type(model).__name__} has no AQT layer: call quantize_aqt(model) before.")
    for quantizer in quantizers:
        quantizer.frozen = True


@torch.no_grad()
def integers_of(layer: AQTLinear | AQTConv2d) -> Integers:
    """The layer's integer weight and the scales of its inputs and outputs; after `freeze_bounds`."""
    if not layer.quantizer.frozen:
        raise TikhonError(
            "The bounds of the inputs are not frozen, so there are no integers yet: freeze_bounds(model)."
        )
    scale = layer.quantizer.input_scale()
    weight = layer.weight / _by_weight(scale, layer.weight, getattr(layer, "groups", 1))
    t = channel_scale(weight, layer.quantizer.bits)
    return Integers(round_to_signed(weight * t, layer.quantizer.bits).to(torch.int8), scale, t.flatten())


def _by_weight(scale: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The scale of the input channel that each weight multiplies, (O, C / groups, 1, ...)."""
    rows = scale.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
    return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
