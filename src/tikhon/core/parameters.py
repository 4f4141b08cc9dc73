"""Which parameters a method acts on: one selection language, each leaf once, with the weight that the network uses."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize

from tikhon.core.errors import TikhonError, near_misses
from tikhon.core.passes import eval_mode, unwrapped
from tikhon.core.shards import is_sharded, part_of

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)

Where = str | type[nn.Module] | tuple["str | type[nn.Module]", ...] | Callable[[str, Tensor], bool]
"""A selection of parameters.

"weights": tensors of two or more dimensions, so neither biases nor norms; "norms": scale and shift of normalisation
layers; "all": every parameter; a glob over parameter or module names ("layers.*.weight", "head"); a module class
(`nn.Conv2d`: its weights); a tuple of these (any of them); or a function (name, parameter) -> bool.
"""


@dataclass(slots=True, eq=False)
class Selected:
    """One parameter: the leaf that an optimizer moves, and the weight that the network computes with."""

    name: str
    module: nn.Module
    attribute: str
    leaf_name: str

    @property
    def key(self) -> str:
        """The leaf's own name: the weight's, but where several leaves make a weight, as under torch's weight norm."""
        own = self.leaf_name.rpartition(".")[2]
        return self.name if own in (self.attribute, "original") else f"{self.name}.{own}"

    @property
    def leaf(self) -> nn.Parameter:
        """Looked up at every use: sharded training replaces parameters."""
        if self.leaf_name == self.attribute:
            return self.module._parameters[self.attribute]  # type: ignore[return-value]
        # as `get_parameter` finds it, in a tenth of the time: a step asks many times
        _, _, own = self.leaf_name.rpartition(".")
        chain: Any = self.module._modules["parametrizations"]._modules[self.attribute]  # type: ignore[union-attr]
        return chain._parameters[own]  # type: ignore[no-any-return]

    @property
    def weight(self) -> Tensor:
        """The effective weight: what parametrizations make of the leaf.

        As in evaluation: to read it neither draws masks of weights nor moves vectors of a power iteration.
        """
        if self.leaf_name == self.attribute:
            return self.leaf
        if not parametrize.is_parametrized(self.module, self.attribute):
            return getattr(self.module, self.attribute)  # type: ignore[no-any-return]
        with eval_mode(self.module.get_submodule(f"parametrizations.{self.attribute}")):
            return getattr(self.module, self.attribute)  # type: ignore[no-any-return]


INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What compilers, sharding and checkpointing call the module that they wrap."""


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module by the name that it has in the plain model, whatever wraps the model or parts of it."""
    seen: set[nn.Module] = set()
    waiting: list[tuple[str, nn.Module]] = [("", unwrapped(model))]
    while waiting:
        name, module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        yield name, module
        if not module._modules:
            continue
        replicated = isinstance(module, (DistributedDataParallel, DataParallel))
        for own, child in reversed(module._modules.items()):
            if child is not None:
                hidden = own in INSIDE or (replicated and own == "module")
                waiting.append((name if hidden else f"{name}.{own}" if name else own, child))


def every_parameter(model: nn.Module) -> list[Selected]:
    """Each leaf parameter of the model once (tied ones under their first name)."""
    return [chosen for chosen, _ in _leaves(model)]


def _leaves(model: nn.Module) -> Iterator[tuple[Selected, nn.Parameter]]:
    """Every parameter with the leaf that it is now."""
    seen: set[int] = set()
    for prefix, module in plain_modules(model):
        if isinstance(module, parametrize.ParametrizationList):
            continue  # its originals are reached through the module that it belongs to
        own = [(name, name, leaf) for name, leaf in module._parameters.items()]
        if "parametrizations" in module._modules:
            for name, chain in module.parametrizations.items():  # type: ignore[operator, union-attr]
                own += [(name, f"parametrizations.{name}.{inner}", leaf) for inner, leaf in chain._parameters.items()]
        for name, leaf_name, leaf in own:
            if leaf is not None and id(leaf) not in seen:
                seen.add(id(leaf))
                yield Selected(f"{prefix}.{name}" if prefix else name, module, name, leaf_name), leaf


def matches(where: Where, chosen: Selected, leaf: Tensor) -> bool:
    """Whether a selection names this parameter, whose leaf is given."""
    if where == "weights":
        return leaf.ndim >= 2
    if where == "all":
        return True
    if isinstance(where, tuple):
        return any(matches(one, chosen, leaf) for one in where)
    if isinstance(where, type):
        return isinstance(chosen.module, where) and leaf.ndim >= 2
    if callable(where):
        return where(chosen.name, leaf)
    if where == "norms":
        return isinstance(chosen.module, NORMS)
    module_name = chosen.name.rpartition(".")[0]
    return (
        fnmatch.fnmatchcase(chosen.name, where)
        or fnmatch.fnmatchcase(module_name, where)
        or (module_name + ".").startswith(where + ".")
    )


def select(model: nn.Module, where: Where = "weights") -> list[Selected]:
    """The trainable parameters of a model that `where` names, each once.

    Raises `TikhonError`, with near misses, where a selection matches nothing.

    >>> [chosen.name for chosen in select(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))]
    ['0.weight']
    """
    found = [one for one, leaf in _leaves(model) if leaf.requires_grad and matches(where, one, leaf)]
    if not found:
        names = [one.name for one, leaf in _leaves(model) if leaf.requires_grad]
        hint = near_misses(where, names) if isinstance(where, str) else ""
        raise TikhonError(f"where={where!r} selects no trainable parameter of {type(model).__name__}. {hint}".strip())
    return found


def effective_weights(chosen: Sequence[Selected]) -> dict[str, Tensor]:
    """The weights that the network computes with, by name: each once, though weight norm makes one of two leaves."""
    return {one.name: one.weight for one in chosen}


def check_parametrizable(model: nn.Module, chosen: Sequence[Selected], method: str) -> None:
    """Refuse to parametrise a weight that another module shares, or that is parametrised already.

    A parametrization of one of two tied weights would untie them. One on top of another would change what the network
    computes, because torch does not carry the value through the inverse of the chain.
    """
    names: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(f"{prefix}.{name}" if prefix else name)
    for one in chosen:
        if parametrize.is_parametrized(one.module, one.attribute):
            chain: Any = one.module.get_submodule(f"parametrizations.{one.attribute}")
            kinds = ", ".join(type(kind).__name__ for kind in chain)
            raise TikhonError(
                f"{method} parametrises weights, and {one.name} is parametrised already ({kinds}). "
                "Leave that layer out with where=."
            )
        shared = names[id(one.leaf)]
        if len(shared) > 1:
            raise TikhonError(
                f"{method} parametrises weights, and {' and '.join(shared)} are one tied weight: parametrising one "
                "would untie them. Leave it out with where=."
            )


def find_module(model: nn.Module, name: str, method: str) -> nn.Module:
    """The module called `name`; a `TikhonError` with near misses where there is none."""
    modules = {key: module for key, module in plain_modules(model) if key}
    if name not in modules:
        raise TikhonError(f"{method}: the model has no module {name!r}. {near_misses(name, modules)}")
    return modules[name]


def last_linear(model: nn.Module, method: str) -> str:
    """The name of the last `nn.Linear` in order of registration: by convention the classifier."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise TikhonError(f"{method} found no nn.Linear in {type(model).__name__} to act on; name the module with at=.")
    return names[-1]


def freeze_others(model: nn.Module, kept: Sequence[Tensor]) -> list[nn.Parameter]:
    """Let nothing train but the parameters `kept`; returns those that trained before, to be let go again at export."""
    trained = {id(one) for one in kept}
    frozen = [one for one in model.parameters() if one.requires_grad and id(one) not in trained]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


class Snapshot(nn.Module):
    """Copies of parameters by name, saved and moved with the method that owns them."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def matching(self, chosen: list[Selected]) -> list[Tensor]:
        """The copies that belong to these parameters, in their order."""
        missing = [one.name for one in chosen if one.name not in self.tensors]
        if missing:
            raise TikhonError(f"No copy of {missing[0]!r} was taken: the selection or the model has changed since.")
        return [self.tensors[one.name] for one in chosen]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Snapshot:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tensors = {name: fn(tensor) for name, tensor in self.tensors.items()}
        return self

    def get_extra_state(self) -> dict[str, Tensor]:
        return dict(self.tensors)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        def restored(name: str, tensor: Tensor) -> Tensor:
            old = self.tensors.get(name)
            return tensor.to(tensor.device if old is None else old.device, copy=True)

        self.tensors = {name: restored(name, tensor) for name, tensor in state.items()}


@torch.no_grad()
def copy_into(destinations: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """In-place copies, as one fused operation where devices and dtypes allow; into shards the part that is theirs."""
    if any(map(is_sharded, destinations)):
        for destination, source in zip(destinations, sources, strict=True):
            destination.copy_(part_of(source, destination))
    elif destinations:
        torch._foreach_copy_(list(destinations), list(sources))
