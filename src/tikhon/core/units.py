"""Units: which output units of a model's layers can be removed, and which modules must lose them together.

A unit is an output feature of an `nn.Linear` or an output channel of a convolution. The model is traced once; its units
flow through channel-wise operations (activations, dropout, batch norm, pooling, flattening) to the layers that consume
them. An addition or product of two layers' outputs couples their units: they stay or go together. Whatever is not known
to be channel-wise (concatenation, layer norm, attention, the model's own output) fixes the units that enter it. Of
torch's transformer layers the hidden units of the feed-forward part are units; attention heads are not, because
`nn.MultiheadAttention` is as wide as its heads together by definition.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError, near_misses
from tikhon.math.precision import at_least_float32

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

DROPOUTS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh),
    *(nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid),
)
POOLS_OF_CONSTANTS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
POOLS_OF_ZEROS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
"""Pooling that keeps a channel of zeros, but with padding not a channel of another constant."""
FEED_FORWARDS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
"""Modules that compute linear2(dropout(activation(linear1(x)))) inside."""

# Functions and tensor methods, by name; a trailing underscore (in place) is taken off before the look-up.
ELEMENTWISE = re.compile(
    r"(leaky_)?relu6?|[esc]elu|gelu|silu|mish|(log_?|hard)?sigmoid|(hard)?tanh|tanhshrink|soft(plus|sign)|hardswish"
    r"|i?(add|sub|mul|truediv)|div|neg|abs|square|clamp"
)
IN_PLACE = re.compile(r"i(add|sub|mul|truediv)")
DROPPING = re.compile(r"((feature_)?alpha_)?dropout|dropout[123]d|contiguous")
POOLING_CONSTANTS = re.compile(r"(max|adaptive_(avg|max))_pool[123]d")
POOLING_ZEROS = re.compile(r"avg_pool[123]d")

Layout = Literal["first", "last", "flat"]
"""Where units are: dimension 1 of a convolution's output; the last dimension; blocks of a flattened dimension 1."""


@dataclass(frozen=True)
class Consumer:
    """A layer that reads the units: unit j is its input columns j * expansion, ..., (j + 1) * expansion - 1."""

    name: str
    expansion: int


@dataclass(frozen=True)
class UnitGroup:
    """Units that stay or go together: row j of every producer, entry j of every norm, the columns of j in consumers.

    Names are module names. `fixed` says why the units cannot be removed; "" if they can.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[Consumer, ...]
    fixed: str = ""


@dataclass(frozen=True)
class Units:
    """All groups of a model, and what each consumer reads from a unit whose weights are zero.

    constants: consumer -> (size,), the value (in evaluation mode) at every position of the unit; NaN where it is not
    the same at all positions.
    """

    groups: tuple[UnitGroup, ...]
    constants: dict[str, Tensor]


def units(model: nn.Module, part: str = "") -> tuple[UnitGroup, ...]:
    """The groups of output units of a model, in the order of the forward pass, those that are fixed included.

    part: the name of a submodule to look at alone, for models that cannot be traced as a whole; what leaves the part
    is fixed, and the rest of the model must use the part only by calling it.

    Raises `TikhonError` where the model cannot be traced symbolically.

    >>> mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [(group.name, group.size, group.fixed) for group in units(mlp)]
    [('0', 8, ''), ('2', 2, 'it is an output of the model')]
    """
    return trace(model, part).groups


def unit_parameters(group: UnitGroup) -> list[str]:
    """Names of all parameters that have a row for each unit of the group: zero there, the unit sends on zero.

    The first producer's weight comes first; a layer may have no bias and a norm neither.
    """
    return [f"{name}.{kind}" for name in (*group.producers, *group.norms) for kind in ("weight", "bias")]


def unit_norms(parameters: Sequence[Tensor]) -> Tensor:
    """(size,): the length of each unit's rows over all these parameters together, in float32 at least."""
    dtype = torch.promote_types(parameters[0].dtype, torch.float32)
    rows = [torch.linalg.vector_norm(one.reshape(len(one), -1), dim=1, dtype=dtype) for one in parameters]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(rows), dim=0)
    return norms


def unit_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """(size,): the inner product of each unit's rows over all these parameters together, in float32 at least."""
    rows = [
        (at_least_float32(a) * at_least_float32(b)).reshape(len(a), -1).sum(dim=1)
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(rows).sum(dim=0)


def trace(model: nn.Module, part: str = "") -> Units:
    """`units` with the constants that removal needs. The model is not changed."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if part not in modules:
        raise TikhonError(f"The model has no module {part!r}. {near_misses(part, modules)}")
    root = modules[part]
    try:
        graph = fx.Tracer().trace(root)
    except Exception as cause:  # tracing runs the model's own code, which may raise anything
        where = f"the part {part!r} of the model" if part else type(root).__name__
        raise TikhonError(
            f"Structured sparsity follows units through the model and cannot trace {where}: "
            f"{type(cause).__name__}: {cause} Name a submodule whose forward has no data-dependent control flow, for "
            'example where="backbone".'
        ) from cause
    with torch.no_grad():
        return _Flow(model, root, f"{part}." if part else "").follow(graph)


@dataclass(eq=False)
class _Space:
    """A set of units that flows through the graph."""

    size: int
    producers: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    fixed: str = ""


@dataclass(frozen=True)
class _Value:
    """A node's output: whose units it has, where, and its value for a unit whose weights are zero, (size,)."""

    space: int
    layout: Layout
    constant: Tensor


class _Flow:
    """One walk through a traced graph, in the order of execution."""

    def __init__(self, model: nn.Module, root: nn.Module, prefix: str) -> None:
        self.root = root
        self.prefix = prefix
        self.spaces: list[_Space] = []
        self.merged: dict[int, int] = {}  # a space that was coupled -> the one that it joined
        self.values: dict[fx.Node, _Value] = {}
        self.constants: dict[str, Tensor] = {}
        owners: dict[int, int] = {}
        for _, parameter in model.named_parameters(remove_duplicate=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        self.tied = {one for one, count in owners.items() if count > 1}
        self.calls: dict[str, int] = {}

    def follow(self, graph: fx.Graph) -> Units:
        for node in graph.nodes:
            if node.op == "call_module":
                self.calls[node.target] = self.calls.get(node.target, 0) + 1
            elif node.op == "get_attr":  # the forward pass reads a layer's parameters itself
                owner = str(node.target).rpartition(".")[0]
                self.calls[owner] = self.calls.get(owner, 0) + 2
        for node in graph.nodes:
            result = self._visit(node)
            if result is not None:
                self.values[node] = result
        groups = [
            UnitGroup(
                name=space.producers[0],
                size=space.size,
                producers=tuple(space.producers),
                norms=tuple(space.norms),
                consumers=tuple(space.consumers),
                fixed=space.fixed or ("" if space.consumers else "no layer reads it"),
            )
            for index, space in enumerate(self.spaces)
            if index not in self.merged
        ]
        return Units(tuple(groups), self.constants)

    # Spaces ----------------------------------------------------------------------------------------------------------

    def _root(self, value: _Value) -> int:
        index = value.space
        while index in self.merged:
            index = self.merged[index]
        return index

    def _space(self, value: _Value) -> _Space:
        return self.spaces[self._root(value)]

    def _couple(self, values: Sequence[_Value]) -> None:
        """These units stay or go together: one space, named after the producer that runs first."""
        first, *others = sorted({self._root(value) for value in values})
        space = self.spaces[first]
        for index in others:
            other = self.spaces[index]
            space.producers += other.producers
            space.norms += other.norms
            space.consumers += other.consumers
            space.fixed = space.fixed or other.fixed
            self.merged[index] = first

    def _fix(self, node: fx.Node, why: str) -> None:
        """Nothing is known of what this node does with its inputs."""
        for source in node.all_input_nodes:
            if source in self.values:
                space = self._space(self.values[source])
                space.fixed = space.fixed or why

    # Nodes -----------------------------------------------------------------------------------------------------------

    def _visit(self, node: fx.Node) -> _Value | None:
        if node.op == "call_module":
            return self._module(node)
        sources = [source for source in node.all_input_nodes if source in self.values]
        if not sources or _reads_batch_size(node):
            return None
        if node.op == "output":
            self._fix(node, "it is an output of the model" if not self.prefix else "it leaves the part")
            return None
        name = _function_name(node)
        value = self.values[sources[0]]
        if ELEMENTWISE.fullmatch(name):
            return self._elementwise(node)
        if len(node.all_input_nodes) == 1 and node.args[:1] == (sources[0],):
            if DROPPING.fullmatch(name):
                return value
            if value.layout == "first":
                if POOLING_CONSTANTS.fullmatch(name) and not node.kwargs.get("return_indices"):
                    return value
                if POOLING_ZEROS.fullmatch(name):
                    return _Value(value.space, "first", _only_zero(value.constant))
                if name == "mean" and _averages_positions(node, self._rank(value)):
                    keeps = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
                    return _Value(value.space, "first" if keeps else "flat", value.constant)
        if _flattens(node, name):
            return _Value(value.space, "flat" if value.layout == "first" else value.layout, value.constant)
        self._fix(node, f"it enters {name or node.target}, which is not known to treat units one by one")
        return None

    def _rank(self, value: _Value) -> int:
        producer = self.root.get_submodule(self._space(value).producers[0].removeprefix(self.prefix))
        return producer.weight.ndim  # type: ignore[return-value]

    def _elementwise(self, node: fx.Node) -> _Value | None:
        values = [self.values[source] for source in node.all_input_nodes if source in self.values]
        sizes = {(self._space(value).size, value.layout) for value in values}
        if len(values) < len(node.all_input_nodes) or len(sizes) > 1:
            self._fix(
                node, f"it enters {_function_name(node)} together with something that is not such a layer's output"
            )
            return None
        self._couple(values)

        def constant(source: fx.Node) -> Tensor:
            return self.values[source].constant.clone()  # the operation may be in place

        args, kwargs = fx.node.map_arg(node.args, constant), fx.node.map_arg(node.kwargs, constant)
        if node.op == "call_method":
            result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            assert callable(node.target)
            result = node.target(*args, **kwargs)
        if node.kwargs.get("inplace") or str(node.target).endswith("_") or IN_PLACE.fullmatch(_function_name(node)):
            self._overwrite(node, result)
        return _Value(values[0].space, values[0].layout, result)

    def _overwrite(self, node: fx.Node, constant: Tensor) -> None:
        """An operation in place: what reads its input later reads its result."""
        source = node.args[0]
        if isinstance(source, fx.Node):
            self.values[source] = replace(self.values[source], constant=constant)

    def _module(self, node: fx.Node) -> _Value | None:
        module = self.root.get_submodule(str(node.target))
        for inside, block in module.named_modules():
            if isinstance(block, FEED_FORWARDS):
                self._feed_forward(node, f"{node.target}.{inside}".rstrip("."), block)
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        value = self.values.get(source) if isinstance(source, fx.Node) else None
        if isinstance(module, LAYERS):
            return self._layer(node, module, value)
        if value is None:
            self._fix(node, f"it enters {node.target}")
            return None
        if isinstance(module, NORMS):
            if self._shared(node, module) or module.num_features != self._space(value).size:
                self._fix(node, f"it enters {node.target}, which is shared or has other channels")
                return None
            self._space(value).norms.append(self.prefix + str(node.target))
            return _Value(value.space, value.layout, _normalised(module, value.constant))
        if isinstance(module, DROPOUTS):
            return value
        if isinstance(module, ACTIVATIONS):
            result = module.forward(value.constant.clone())
            if getattr(module, "inplace", False):
                self._overwrite(node, result)
            return _Value(value.space, value.layout, result)
        if value.layout == "first" and not getattr(module, "return_indices", False):
            if isinstance(module, POOLS_OF_CONSTANTS):
                return value
            if isinstance(module, POOLS_OF_ZEROS):
                return _Value(value.space, "first", _only_zero(value.constant))
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            return _Value(value.space, "flat" if value.layout == "first" else value.layout, value.constant)
        self._fix(node, f"it enters {node.target} ({type(module).__name__}), not known to treat units one by one")
        return None

    def _layer(self, node: fx.Node, layer: Layer, value: _Value | None) -> _Value:
        name = self.prefix + str(node.target)
        shared = self._shared(node, layer)
        grouped = not isinstance(layer, nn.Linear) and layer.groups > 1
        expansion = 0 if value is None else _expansion(layer, value.layout, self._space(value).size)
        if value is None or shared or grouped or expansion == 0:
            self._fix(node, f"it enters {name}, which is {_unsuited(shared, grouped)}")
        else:
            self._space(value).consumers.append(Consumer(name, expansion))
            self.constants[name] = value.constant
        size = len(layer.weight)
        constant = layer.weight.new_zeros(size) if layer.bias is None else layer.bias.detach().clone()
        self.spaces.append(_Space(size, [name], fixed=f"it is {_unsuited(shared, grouped)}" * (shared or grouped)))
        return _Value(len(self.spaces) - 1, "last" if isinstance(layer, nn.Linear) else "first", constant)

    def _feed_forward(
        self, node: fx.Node, name: str, block: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer
    ) -> None:
        """The hidden units between two layers that no other module sees."""
        first, second = f"{self.prefix}{name}.linear1", f"{self.prefix}{name}.linear2"
        layer, activation = block.linear1, block.activation
        known = isinstance(activation, ACTIVATIONS) or bool(ELEMENTWISE.fullmatch(_torch_name(activation)))
        why = "" if known else "its activation is not known to treat units one by one"
        if self._shared(node, block):
            why = f"it is {_unsuited(shared=True, grouped=False)}"
        size = len(layer.weight)
        constant = layer.weight.new_zeros(size) if layer.bias is None else layer.bias.detach().clone()
        self.constants[second] = activation(constant) if known else torch.full_like(constant, torch.nan)
        self.spaces.append(_Space(size, [first], consumers=[Consumer(second, 1)], fixed=why))

    def _shared(self, node: fx.Node, module: nn.Module) -> bool:
        tied = any(id(parameter) in self.tied for parameter in module.parameters())
        return tied or self.calls[str(node.target)] > 1


def _unsuited(shared: bool, grouped: bool) -> str:
    if shared:
        return "used more than once"
    return "a grouped convolution" if grouped else "not fed by these units alone, one column or block of columns each"


def _expansion(layer: Layer, layout: Layout, size: int) -> int:
    """How many input columns belong to a unit; 0 where the columns do not line up with units."""
    if not isinstance(layer, nn.Linear):
        return int(layout == "first" and layer.in_channels == size)
    if layout == "flat":
        return 0 if layer.in_features % size else layer.in_features // size
    return int(layout == "last" and layer.in_features == size)


def _normalised(norm: Norm, constant: Tensor) -> Tensor:
    """A batch norm of units that are constant, as in evaluation mode."""
    if norm.running_mean is None or norm.running_var is None:  # batch statistics even then: the unit is its own mean
        return torch.zeros_like(constant) if norm.bias is None else norm.bias.detach().clone()
    mean, variance = norm.running_mean, norm.running_var
    return F.batch_norm(constant[None], mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)[0]


def _only_zero(constant: Tensor) -> Tensor:
    return torch.where(constant == 0, constant, torch.nan)


def _function_name(node: fx.Node) -> str:
    """The plain name of a function or method of torch; "" for functions that are not torch's."""
    return str(node.target).rstrip("_") if node.op == "call_method" else _torch_name(node.target)


def _torch_name(function: object) -> str:
    home = getattr(function, "__module__", None) or "torch"
    known = home.partition(".")[0] in ("torch", "_operator", "builtins")
    return getattr(function, "__name__", "").rstrip("_") if known else ""


def _reads_batch_size(node: fx.Node) -> bool:
    """x.size(0), x.shape[0]: says nothing of the units."""
    name = _function_name(node)
    if name == "size" and node.args[1:] == (0,):
        return True
    whole_shape = (name == "size" and len(node.args) == 1) or (name == "getattr" and node.args[1:] == ("shape",))
    return whole_shape and all(_function_name(user) == "getitem" and user.args[1:] == (0,) for user in node.users)


def _flattens(node: fx.Node, name: str) -> bool:
    """flatten(x, 1), and x.view(x.size(0), -1) in its spellings."""
    if name == "flatten":
        start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
        end = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)
        return (start, end) == (1, -1)
    if name in ("view", "reshape") and not node.kwargs:
        shape = node.args[1] if isinstance(node.args[1], (tuple, list)) else node.args[1:]
        batch = shape[0]
        return isinstance(batch, fx.Node) and _is_batch_size(batch) and tuple(shape[1:]) == (-1,)
    return False


def _is_batch_size(node: fx.Node) -> bool:
    if _function_name(node) == "getitem":
        source = node.args[0]
        return node.args[1:] == (0,) and isinstance(source, fx.Node) and _function_name(source) in ("size", "getattr")
    return _function_name(node) == "size" and node.args[1:] == (0,)


def _averages_positions(node: fx.Node, rank: int) -> bool:
    """Whether a mean is over all positions of a convolution's output of this rank, and nothing else."""
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    dims = (dims,) if isinstance(dims, int) else dims
    if not isinstance(dims, (tuple, list)) or not all(isinstance(one, int) for one in dims):
        return False
    return sorted(one % rank for one in dims) == list(range(2, rank))
