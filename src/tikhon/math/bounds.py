"""Bounds of a network's outputs over a box of inputs: an interval that runs through it in place of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.math.intervals import (
    linear_margins,
    margins,
    monotone_interval,
    normalised_interval,
    weighted_interval,
)

Last = tuple["Interval", Tensor, Tensor | None]
"""A linear layer: its input, weight and bias."""


class Interval:
    """The box of all tensors between centre - radius and centre + radius.

    Call a model with one, in eval mode: torch hands every function that meets it to the rules of this file, so the
    model's own `forward` says what happens, whatever its class. A function without a rule raises `TikhonError`.
    The result is the box around all outputs, sound up to rounding.

    centre, radius: of one shape, radius at least 0. local: the radius is taken as infinitely small, so that the
    function is linear in the box. before_relu: the boxes that met a ReLU on the way, in order.
    """

    def __init__(
        self,
        centre: Tensor,
        radius: Tensor,
        local: bool = False,
        before_relu: list[Interval] | None = None,
        last: Last | None = None,
    ) -> None:
        self.centre, self.radius, self.local, self._last = centre, radius, local, last
        self.before_relu: list[Interval] = [] if before_relu is None else before_relu

    @property
    def lower(self) -> Tensor:
        return self.centre - self.radius

    @property
    def upper(self) -> Tensor:
        return self.centre + self.radius

    def margins(self, probabilities: Tensor) -> Tensor:
        """The largest value in the box of z_k - q . z for scores z (B, K) and every class, (B, K).

        probabilities: the target q, (B, K). Scores straight from a linear layer are bounded through it.
        """
        if self._last is None or self._last[0].centre.ndim != 2:
            return margins(self.centre, self.radius, probabilities)
        features, weight, bias = self._last
        return linear_margins(features.centre, features.radius, weight, bias, probabilities)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself probes for
            raise AttributeError(name)
        raise TikhonError(f"There is no rule for bounds through a tensor's {name!r}: leave out the layer that asks.")

    # What a forward pass asks of a tensor -------------------------------------------------------------------------

    @property
    def shape(self) -> torch.Size:
        return self.centre.shape

    @property
    def ndim(self) -> int:
        return self.centre.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.centre.dtype

    @property
    def device(self) -> torch.device:
        return self.centre.device

    def __len__(self) -> int:
        return len(self.centre)

    def dim(self) -> int:
        return self.centre.dim()

    def size(self, dim: int | None = None) -> Any:
        return self.centre.size() if dim is None else self.centre.size(dim)

    def flatten(self, *dims: int, **settings: Any) -> Interval:
        return _alike(torch.flatten, self, *dims, **settings)

    def reshape(self, *shape: Any) -> Interval:
        return _alike(Tensor.reshape, self, *shape)

    def view(self, *shape: Any) -> Interval:
        return _alike(Tensor.view, self, *shape)

    def mean(self, *dims: Any, **settings: Any) -> Interval:
        return _alike(torch.mean, self, *dims, **settings)

    def relu(self) -> Interval:
        return _relu(torch.relu, self)

    def __getitem__(self, index: Any) -> Interval:
        return _alike(Tensor.__getitem__, self, index)

    def __add__(self, other: Any) -> Interval:
        return _added(torch.add, self, other)

    def __sub__(self, other: Any) -> Interval:
        return _added(torch.sub, self, other)

    def __mul__(self, other: Any) -> Interval:
        return _multiplied(torch.mul, self, other)

    def __matmul__(self, weight: Tensor) -> Interval:
        return _weighted(F.linear, self, weight.T)

    __radd__, __rmul__ = __add__, __mul__

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> Interval:
        rule = _RULES.get(function)
        if rule is None:
            name = getattr(function, "__name__", str(function))
            raise TikhonError(
                f"There is no rule for bounds through torch's {name}. Known are linear layers, convolutions, batch "
                "norm in eval mode, ReLU, sigmoid, tanh, pooling, flattening, sums and products with tensors."
            )
        return rule(function, *arguments, **(settings or {}))

    def _next(self, centre: Tensor, radius: Tensor, last: Last | None = None) -> Interval:
        return Interval(centre, radius, self.local, self.before_relu, last)


def _weighted(
    function: Callable[..., Tensor], box: Interval, weight: Tensor, bias: Tensor | None = None, *settings: Any
) -> Interval:
    last = (box, weight, bias) if function is F.linear else None
    return box._next(*weighted_interval(function, box.centre, box.radius, weight, bias, *settings), last)


def _normalised(
    function: Callable[..., Tensor],
    box: Interval,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Interval:
    if training or mean is None or variance is None:
        raise TikhonError("Bounds go through batch norm with running statistics: put the model in eval mode.")
    return box._next(*normalised_interval(box.centre, box.radius, mean, variance, weight, bias, eps))


def _monotone(function: Callable[..., Tensor], box: Interval, *arguments: Any, **settings: Any) -> Interval:
    def of_tensor(values: Tensor) -> Tensor:
        return function(values, *arguments, **settings)

    if box.local:
        return box._next(*_moved(of_tensor, box.centre, box.radius))
    return box._next(*monotone_interval(of_tensor, box.centre, box.radius))


def _moved(function: Callable[[Tensor], Tensor], centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """f(c) and df/dc r, for which torch's forward mode need not be loaded; no gradient flows through."""
    with torch.enable_grad():
        point = centre.detach().requires_grad_()
        value = function(point)
        pull = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, point, pull, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, pull, radius)
    return value.detach(), pushed


def _relu(function: Callable[..., Tensor], box: Interval, inplace: bool = False) -> Interval:
    box.before_relu.append(box)
    return _monotone(torch.relu, box)


def _alike(function: Callable[..., Tensor], box: Interval, *arguments: Any, **settings: Any) -> Interval:
    """A linear function without negative weights: centre and radius go the same way."""
    return box._next(function(box.centre, *arguments, **settings), function(box.radius, *arguments, **settings))


def _unchanged(
    function: Callable[..., Tensor], box: Interval, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Interval:
    if training:
        raise TikhonError("Bounds go through dropout where it drops nothing: put the model in eval mode.")
    return box


def _added(function: Callable[..., Tensor], one: Any, other: Any) -> Interval:
    if isinstance(one, Interval) and isinstance(other, Interval):
        return one._next(function(one.centre, other.centre), one.radius + other.radius)
    if isinstance(one, Interval):
        return one._next(function(one.centre, other), one.radius)
    return other._next(function(one, other.centre), other.radius)  # type: ignore[no-any-return]


def _multiplied(function: Callable[..., Tensor], one: Any, other: Any) -> Interval:
    if isinstance(one, Interval) and isinstance(other, Interval):
        raise TikhonError("There is no rule for the product of two values that both depend on the input.")
    box, factor = (one, other) if isinstance(one, Interval) else (other, one)
    return box._next(box.centre * factor, box.radius * abs(factor))


_RULES: dict[Any, Callable[..., Interval]] = {
    **dict.fromkeys((F.linear, F.conv1d, F.conv2d, F.conv3d), _weighted),
    F.batch_norm: _normalised,
    **dict.fromkeys((F.relu, torch.relu), _relu),
    **dict.fromkeys((torch.sigmoid, torch.tanh, F.max_pool1d, F.max_pool2d, F.max_pool3d), _monotone),
    **dict.fromkeys((torch.flatten, torch.reshape, torch.mean), _alike),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), _alike),
    **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d), _alike),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), _unchanged),
    **dict.fromkeys((torch.add, Tensor.add, torch.sub, Tensor.sub), _added),
    **dict.fromkeys((torch.mul, Tensor.mul), _multiplied),
}
