"""Surgery: layers of a model changed in place so that their weights respond to hyperparameters, and changed back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.batches import call
from tikhon.core.errors import TikhonError
from tikhon.core.export import refuse_different, refuse_traces
from tikhon.core.inserted import At, modules_at
from tikhon.core.passes import evaluating, unwrapped
from tikhon.tuning.perturbation import Hyperparameters
from tikhon.tuning.response import KEY, RESPONDING, BestResponse


def layers_at(model: nn.Module, where: At | None) -> list[nn.Module]:
    """The layers that can be made to respond, all or those that `where` names; refuses what would go wrong."""
    if unwrapped(model) is not model:
        raise TikhonError(f"{KEY} takes the plain model, not one that is compiled or wrapped.")
    named = model.modules() if where is None else modules_at(model, where, KEY).values()
    found = [one for one in named if type(one) in RESPONDING]
    if not found:
        raise TikhonError(
            f"{KEY}: {type(model).__name__} has no plain nn.Linear, nn.Conv1d or nn.Conv2d "
            f"{'at all' if where is None else f'at where={where!r}'}; those that are parametrised do not count."
        )
    uses = Counter(id(one) for module in model.modules() for one in module._parameters.values())
    fused = {
        id(one) for block in model.modules() if isinstance(block, nn.TransformerEncoderLayer) for one in block.modules()
    }
    for name, module in model.named_modules():
        if any(module is one for one in found):
            if uses[id(module.weight)] > 1:
                raise TikhonError(f"{KEY}: the weight of {name} is tied to another. Leave that layer out with where=.")
            if id(module) in fused:
                raise TikhonError(
                    f"{KEY}: nn.TransformerEncoderLayer reads the weights of {name} past the layer in eval mode. Leave "
                    "that layer out with where=."
                )
    return found


def make_responding(layer: nn.Module, hyperparameters: Hyperparameters, generator: torch.Generator) -> BestResponse:
    """Change a layer in place: name, parameters, hooks and mode stay; directions are drawn as torch draws weights."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    bound = weight[0].numel() ** -0.5

    def drawn(shape: torch.Size) -> nn.Parameter:
        return nn.Parameter((bound * (2.0 * torch.rand(shape, generator=generator) - 1.0)).to(weight))

    def zeros() -> nn.Parameter:
        return nn.Parameter(weight.new_zeros(len(weight), len(hyperparameters.value)))

    layer.__class__ = RESPONDING[type(layer)]
    assert isinstance(layer, BestResponse)
    layer.register_parameter("direction", drawn(weight.shape))
    layer.register_parameter("scaling", zeros())
    if layer.bias is not None:
        layer.register_parameter("bias_direction", drawn(layer.bias.shape))
        layer.register_parameter("bias_scaling", zeros())
    layer.__dict__["hyperparameters"] = (
        hyperparameters  # shared by all layers, and no part of the model that an optimizer would move
    )
    return layer


@torch.no_grad()
def make_plain(layer: BestResponse) -> None:
    """Fold the response at the current hyperparameters into weight and bias, and make the layer torch's own again."""
    weight, bias = layer.folded()
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)
    for name in ("direction", "scaling", "bias_direction", "bias_scaling"):
        layer._parameters.pop(name, None)
    del layer.__dict__["hyperparameters"]
    layer.__class__ = next(plain for plain, responding in RESPONDING.items() if responding is type(layer))  # type: ignore[assignment]


def exported(model: nn.Module, layers: Sequence[BestResponse], example: Any) -> nn.Module:
    """The model with its layers folded; outputs in eval mode are compared where there is an example of inputs."""
    with evaluating(model):
        expected = None if example is None else call(model, example)
        for layer in layers:
            make_plain(layer)
        refuse_traces(model)
        if expected is not None:
            refuse_different(call(model, example), expected)
    return model
