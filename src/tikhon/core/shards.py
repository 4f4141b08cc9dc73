"""Sharded parameters (FSDP2): of what a process holds a part, the whole, where a moment looks at whole weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LEFT = ("__composable_api", "_is_fsdp_managed_module", "_fsdp_use_orig_params")
"""Beginnings of the names of what the sharding keeps in a module."""


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is a DTensor; told by what it has, because importing its module takes half a second."""
    return hasattr(tensor, "full_tensor")


def holds_shards(model: nn.Module) -> bool:
    return any(map(is_sharded, model.parameters()))


def whole(tensor: Tensor) -> Tensor:
    """The whole of what every process holds a part of; an ordinary tensor as it is."""
    full: Any = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def part_of(values: Tensor, like: Tensor) -> Tensor:
    """Of a tensor that is the same in every process, what is sharded as `like` is. Nothing is sent."""
    if is_sharded(values) or not is_sharded(like):
        return values
    from torch.distributed.tensor import DTensor, Replicate

    mesh: Any = like.device_mesh  # type: ignore[attr-defined]
    same = DTensor.from_local(values.detach(), mesh, [Replicate()] * mesh.ndim, run_check=False)
    return same.redistribute(placements=like.placements)  # type: ignore[attr-defined]


def let_go(model: nn.Module) -> None:
    """Drop the whole parameters that a forward pass has left in a sharded model: what counts are the shards."""
    for module in _sharding(model):
        module.reshard()  # type: ignore[operator]


def _sharding(model: nn.Module) -> list[nn.Module]:
    """The modules that gather parameters for their passes (FSDPModule)."""
    return [module for module in model.modules() if hasattr(module, "set_requires_gradient_sync")]


@contextmanager
def whole_parameters(model: nn.Module, moving: bool) -> Iterator[Mapping[int, Tensor]]:
    """Inside, the model is an ordinary one of whole parameters; yields the shards by the `id` of these.

    moving: gradients are whole as well, and what was written into them and into parameters returns to the shards.
    Costs the memory of a whole model for the time being, and the sending of it.
    """
    let_go(model)
    places = [
        (module, name, leaf)
        for module in model.modules()
        for name, leaf in module._parameters.items()
        if leaf is not None and is_sharded(leaf)
    ]
    shards = {id(leaf): leaf for _, _, leaf in places}  # tied ones once
    wholes = {key: nn.Parameter(whole(leaf.detach()), leaf.requires_grad) for key, leaf in shards.items()}
    if moving:
        for key, leaf in shards.items():
            wholes[key].grad = None if leaf.grad is None else whole(leaf.grad)
    for module, name, leaf in places:
        module._parameters[name] = wholes[id(leaf)]
    hooks = _without_hooks(model)
    try:
        yield {id(wholes[key]): leaf for key, leaf in shards.items()}
    finally:
        for chain, before in hooks:
            chain.clear()
            chain.update(before)
        for module, name, leaf in places:
            module._parameters[name] = leaf
    if moving:
        with torch.no_grad():
            for key, leaf in shards.items():
                leaf.copy_(part_of(wholes[key], leaf))
                gradient = wholes[key].grad
                leaf.grad = None if gradient is None else part_of(gradient, leaf)


def _without_hooks(model: nn.Module) -> list[tuple[dict[int, Any], dict[int, Any]]]:
    """Take off the hooks that gather parameters; returns every chain that had one, and what it was."""
    changed = []
    for module in model.modules():
        for name, chain in vars(module).items():
            if not name.endswith("_hooks") or not isinstance(chain, dict):
                continue
            kept = {key: hook for key, hook in chain.items() if not _gathers(hook)}
            if len(kept) < len(chain):
                changed.append((chain, dict(chain)))
                chain.clear()
                chain.update(kept)
    return changed


def _gathers(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.fsdp")


def unshard(model: nn.Module) -> None:
    """Make an ordinary model of whole parameters of a sharded one, for good and in every process."""
    let_go(model)
    wholes: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, leaf in module._parameters.items():
            if leaf is not None and is_sharded(leaf):
                if id(leaf) not in wholes:
                    wholes[id(leaf)] = nn.Parameter(whole(leaf.detach()), leaf.requires_grad)
                module._parameters[name] = wholes[id(leaf)]
    _without_hooks(model)
    for module in _sharding(model):
        module.__class__ = type(module).__bases__[1]  # of (FSDPModule, what it was)
    for module in model.modules():
        for name in [name for name in vars(module) if name.startswith(LEFT)]:
            delattr(module, name)


def gradients_apart(loss: Tensor, shards: Sequence[Tensor]) -> dict[int, Tensor]:
    """By `id` of these leaves the whole gradient of the loss; their own gradients stay as they are.

    Gradients reach shards in `backward` only, where every process must take part.
    """
    own = [leaf.grad for leaf in shards]
    try:
        for leaf in shards:
            leaf.grad = None
        loss.backward()
        return {id(leaf): whole(leaf.grad) for leaf in shards if leaf.grad is not None}
    finally:
        for leaf, gradient in zip(shards, own, strict=True):
            leaf.grad = gradient
