"""Noisy layers: weights and inputs with noise in place of rounding, of the bit widths that compete for a layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core.mixed import Choice, choices
from tikhon.core.units import LAYERS
from tikhon.math.quantization import with_quantization_noise
from tikhon.math.random import centred


class Noise(nn.Module):
    """A layer's parametrization: its weight, and by a hook its input, with the noise of the widths by their shares."""

    levels: Tensor

    def __init__(self, choice: Choice, operation: int) -> None:
        super().__init__()
        self.decides = (choice, operation)  # in a tuple: its logits are in the model once, where its place is
        levels = [2.0**bits - 1.0 for _, bits in choice.pairs[choice.slices[operation]]]
        self.register_buffer("levels", choice.logits.new_tensor(levels), persistent=False)
        self.multiplications = 0
        self.in_pass = False  # whoever else reads the weight gets it as it is, and moves no random numbers

    def forward(self, weight: Tensor) -> Tensor:
        return self.noisy(weight) if self.training and self.in_pass else weight

    def noisy(self, values: Tensor) -> Tensor:
        """The values with independent noise for every width, times its share."""
        choice, operation = self.decides
        draws = centred((len(self.levels), *values.shape), values.dtype, values.device)
        return with_quantization_noise(values, draws, choice.within(operation), self.levels)

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.in_pass = True
        return (self.noisy(args[0]), *args[1:]) if self.training else args

    def leave(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """Count: every weight is used once for every position of the output."""
        self.in_pass = False
        if not isinstance(output, Tensor):  # the pass failed
            return
        parametrizations: Any = module.parametrizations
        weight: Tensor = parametrizations.weight.original
        channels = output.shape[-1] if isinstance(module, nn.Linear) else output.shape[1]
        self.multiplications = weight.numel() * (output.shape[1:].numel() // channels)


def layers_of(*operations: nn.Module) -> list[nn.Module]:
    """The layers that have widths."""
    return [one for operation in operations for one in operation.modules() if has_width(one)]


def has_width(module: nn.Module) -> bool:
    """Whether it is a linear layer or a convolution of torch, with or without parametrizations."""
    return parametrize.type_before_parametrizations(module) in LAYERS


def bit_operations(model: nn.Module) -> dict[Choice, list[float]]:
    """Of every pair of a choice, for one sample: multiplications times the bits of both factors."""
    costs = {choice: [0.0] * len(choice.pairs) for _, _, choice in choices(model)}
    for noise in model.modules():
        if isinstance(noise, Noise):
            choice, operation = noise.decides
            for number, (one, bits) in enumerate(choice.pairs):
                costs[choice][number] += noise.multiplications * bits**2 * (one == operation)
    return costs
