"""Pruning: physically remove output units whose weights are zero, so that the model is smaller and answers the same."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.batches import call
from tikhon.core.errors import TikhonError, near_misses
from tikhon.core.units import LAYERS, Layer, Norm, UnitGroup, Units, trace

Plan = Mapping[str, Tensor]
"""Group name -> which of its units are kept: integers, increasing. Tensors only, so that it can be saved."""


@torch.no_grad()
def plan_of_zeros(model: nn.Module, part: str = "") -> dict[str, Tensor]:
    """What can be kept without changing the output: every unit with a non-zero weight, and what cannot be absorbed.

    A unit whose weights are zero may still send on a constant (its bias, a batch norm's, sigmoid of zero). Where that
    constant can move into the bias of every consumer exactly, the unit can go: into linear layers with bias, and into
    convolutions with bias that do not pad with zeros. At least one unit of a layer stays. Groups that lose nothing are
    not in the plan.
    """
    found = trace(model, part)
    plan = {}
    for group in found.groups:
        if not group.fixed:
            kept = (_alive(model, group) | ~_absorbable(model, group, found)).nonzero().flatten()
            if len(kept) < group.size:
                plan[group.name] = kept if len(kept) else kept.new_zeros(1)
    return plan


@torch.no_grad()
def remove(model: nn.Module, plan: Plan, part: str = "") -> nn.Module:
    """Remove all but the kept units, in place; outputs in evaluation mode stay the same. Returns the model.

    Rows of producers, entries of their batch norms and columns of consumers are cut out and the modules' sizes set;
    constants that a removed unit sends on move into the consumers' biases. Optimizers made before hold parameters that
    are no longer the model's.

    Raises `TikhonError`, before anything is changed, for an unknown or fixed group, for indices out of range, and for
    a unit whose removal would change the output.
    """
    found = trace(model, part)
    chosen = _checked(plan, found)
    for group, kept in chosen:
        gone = _complement(kept, group.size)
        needed = (_alive(model, group) | ~_absorbable(model, group, found))[gone]
        if bool(needed.any()):
            raise TikhonError(
                f"Removing unit {int(gone[needed][0])} of {group.name} would change the output: its weights are not "
                "zero, or it sends on a constant that its consumers cannot absorb. plan_of_zeros(model) finds those "
                "that can go."
            )
    for group, kept in chosen:
        _absorb(model, group, _complement(kept, group.size), found)
        _cut(model, group, kept)
    return model


@torch.no_grad()
def apply_plan(model: nn.Module, plan: Plan, part: str = "") -> nn.Module:
    """Give a fresh model of the same architecture the shapes of a pruned one, in place, to load its state dict.

    >>> fresh = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> apply_plan(fresh, {"0": torch.tensor([1, 5, 6])})[2]
    Linear(in_features=3, out_features=2, bias=True)
    """
    for group, kept in _checked(plan, trace(model, part)):
        _cut(model, group, kept)
    return model


def parameter_count(model: nn.Module) -> int:
    """How many numbers the parameters of a model hold, tied ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, example: Any) -> int:
    """Multiply-add operations of linear layers and convolutions in one forward pass of `example`, counted by hooks.

    What `nn.MultiheadAttention` computes inside is not among them.

    >>> multiply_adds(nn.Linear(4, 8), torch.zeros(1, 4))
    32
    """
    total = 0

    def count(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += output.numel() * prod(weight.shape[1:])

    handles = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, LAYERS)]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return total


def _layer(model: nn.Module, name: str) -> Layer:
    module = model.get_submodule(name)
    assert isinstance(module, LAYERS)
    return module


def _checked(plan: Plan, found: Units) -> list[tuple[UnitGroup, Tensor]]:
    """The groups that a plan names, with increasing indices."""
    groups = {group.name: group for group in found.groups}
    chosen = []
    for name, kept in plan.items():
        if name not in groups:
            raise TikhonError(f"The plan names {name!r}, which is no group of units here. {near_misses(name, groups)}")
        group = groups[name]
        if group.fixed:
            raise TikhonError(f"Units of {name} cannot be removed: {group.fixed}.")
        order = kept.unique()
        if len(order) == 0 or len(order) < len(kept) or order[0] < 0 or order[-1] >= group.size:
            raise TikhonError(
                f"The plan for {name} must be different indices of its {group.size} units, at least one; "
                f"not {kept.tolist()}."
            )
        chosen.append((group, order))
    return chosen


def _complement(kept: Tensor, size: int) -> Tensor:
    gone = torch.ones(size, dtype=torch.bool, device=kept.device)
    gone[kept] = False
    return gone.nonzero().flatten()


def _alive(model: nn.Module, group: UnitGroup) -> Tensor:
    """(size,), bool: units with a weight that is not zero."""
    weights = [_layer(model, name).weight.flatten(1) for name in group.producers]
    return torch.stack([(weight != 0).any(dim=1) for weight in weights]).any(dim=0)


def _absorbable(model: nn.Module, group: UnitGroup, found: Units) -> Tensor:
    """(size,), bool: units whose constant is zero, or can move into the bias of every consumer."""
    absorbable = torch.ones(group.size, dtype=torch.bool, device=_layer(model, group.name).weight.device)
    for consumer in group.consumers:
        layer, constant = _layer(model, consumer.name), found.constants[consumer.name]
        exact = layer.bias is not None and (isinstance(layer, nn.Linear) or not _pads_with_zeros(layer))
        absorbable &= constant.isfinite() if exact else constant == 0
    return absorbable


def _pads_with_zeros(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    if layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    return isinstance(layer.padding, str) or any(layer.padding)


def _columns(kept: Tensor, expansion: int) -> Tensor:
    return (kept[:, None] * expansion + torch.arange(expansion, device=kept.device)).flatten()


def _absorb(model: nn.Module, group: UnitGroup, gone: Tensor, found: Units) -> None:
    for consumer in group.consumers:
        layer, constant = _layer(model, consumer.name), found.constants[consumer.name][gone]
        if layer.bias is not None and bool((constant != 0).any()):
            weight = layer.weight[:, _columns(gone, consumer.expansion)]
            each = weight.reshape(len(weight), len(gone), -1).sum(dim=2)
            layer.bias += each @ constant.to(each.dtype)


def _cut(model: nn.Module, group: UnitGroup, kept: Tensor) -> None:
    for name in group.producers:
        layer = _layer(model, name)
        kept = kept.to(layer.weight.device)
        _keep(layer, "weight", kept)
        _keep(layer, "bias", kept)
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(kept))
    for name in group.norms:
        norm: Norm = model.get_submodule(name)  # type: ignore[assignment]
        for attribute in ("weight", "bias", "running_mean", "running_var"):
            _keep(norm, attribute, kept)
        norm.num_features = len(kept)
    for consumer in group.consumers:
        layer = _layer(model, consumer.name)
        columns = _columns(kept, consumer.expansion)
        _keep(layer, "weight", columns, dim=1)
        setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(columns))


def _keep(module: nn.Module, attribute: str, kept: Tensor, dim: int = 0) -> None:
    old = getattr(module, attribute)
    if old is None:
        return
    new = old.detach().index_select(dim, kept.to(old.device))
    setattr(module, attribute, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
