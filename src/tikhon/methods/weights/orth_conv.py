"""Orthogonal convolutions: a penalty that makes every convolution keep the length of its input, or nearly so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where, select
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Term, Terms

_CONVOLVE: Mapping[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_SPREAD: Mapping[int, Callable[..., Tensor]] = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def _of_axes(functions: Mapping[int, Callable[..., Tensor]], kernel: Tensor) -> Callable[..., Tensor]:
    """The function for as many spatial axes as the kernel has."""
    if kernel.ndim not in functions:
        raise TikhonError(f"A kernel is (M, C, k, ...) with one to three spatial axes, not {tuple(kernel.shape)}.")
    return functions[kernel.ndim]


def orthogonality(
    kernel: Tensor, stride: Sequence[int] | int = 1, dilation: Sequence[int] | int = 1, groups: int = 1
) -> Tensor:
    """L = ||conv(K, K, stride=S, padding=P) - I_0||_F^2 - max(0, M - C S^d), with P = floor((k - 1) / S) S; a scalar.

    kernel: (M, C / groups, k_1, ..., k_d) for d = 1, 2, 3. I_0 is the identity at the central tap, 0 elsewhere. L is 0
    exactly where the rows of the convolution's matrix A are orthonormal or, if there are more rows than columns
    (M > C S^d), its columns. With circular padding, N outputs a channel and an input at least 2 k - 1 wide (k with the
    gaps of dilation), N L is ||A A^T - I||_F^2 or, for more rows than columns, ||A^T A - I||_F^2.
    Dilation: correlations at shifts that are no multiple of it vanish, and at the others they are those of a kernel
    without dilation and of stride S / gcd(S, dilation). Groups: the sum over groups. A transposed convolution is A^T:
    the same function of its weight, stride, dilation and groups.
    Source: Achour, Malgouyres, Mamalet 2021, arXiv 2108.05623; without the constant Wang et al. 2020, 1911.12207.

    >>> orthogonality(torch.eye(3).reshape(3, 3, 1, 1))
    tensor(0.)
    """
    d = kernel.ndim - 2
    strides, dilations = _per_dimension(stride, d), _per_dimension(dilation, d)
    steps = [s // math.gcd(s, gap) for s, gap in zip(strides, dilations, strict=True)]
    padding = [(k - 1) // s * s for k, s in zip(kernel.shape[2:], steps, strict=True)]
    m, c = kernel.shape[0] // groups, kernel.shape[1]
    by_group = kernel.unflatten(0, (groups, m)).transpose(0, 1).flatten(1, 2)  # (m, groups * c, ...): one convolution
    correlation = _of_axes(_CONVOLVE, kernel)(by_group, kernel, stride=steps, padding=padding, groups=groups)
    correlation = correlation.reshape(m, groups, m, -1)
    identity = _identity_at(correlation.shape[-1] // 2, m, correlation)
    excess = groups * max(0, m - c * math.prod(strides))
    return (correlation - identity.unsqueeze(1)).square().sum() - excess


def conv_orth_dist(kernel: Tensor, stride: int = 1) -> Tensor:
    """||A_0^T A - I_0||_F for the columns A_0 that belong to one input pixel; not squared, as in the official code.

    kernel: (M, C, k, ...) square; stride < k. The input has S (k - 1) + k pixels a side, and the pixel is the one in
    the middle of their flat order: the centre, if the side is odd. Source: Wang et al. 2020, arXiv 1911.12207, code.
    """
    channels, side = kernel.shape[1], kernel.shape[-1]
    shape = (stride * (side - 1) + side,) * (kernel.ndim - 2)
    pixels = math.prod(shape)
    delta = _identity_at(pixels // 2, channels, kernel.new_empty(pixels)).reshape(channels, channels, *shape)
    response = _of_axes(_CONVOLVE, kernel)(delta, kernel, stride=stride)
    return _length(_of_axes(_SPREAD, kernel)(response, kernel, stride=stride) - delta)


def deconv_orth_dist(kernel: Tensor, stride: int = 2, padding: int = 1) -> Tensor:
    """||conv(K, K, stride, padding) - I_0||_F, not squared, with the official code's defaults.

    kernel: (M, C, k, ...) square. The paper's padding is floor((k - 1) / stride) stride: with less, only a part of the
    correlations is penalised. Source: Wang et al. 2020, arXiv 1911.12207, code.
    """
    correlation = _of_axes(_CONVOLVE, kernel)(kernel, kernel, stride=stride, padding=padding)
    shape = correlation.shape[2:]
    centre = sum(size // 2 * math.prod(shape[i + 1 :]) for i, size in enumerate(shape))
    correlation = correlation.flatten(2)
    return _length(correlation - _identity_at(centre, len(kernel), correlation))


def orth_dist(matrix: Tensor) -> Tensor:
    """||W^T W - I||_F of a matrix with at least as many rows as columns, else ||W W^T - I||_F; not squared.

    matrix: (M, ...), flattened to two dimensions. Its gradient at an orthogonal matrix is 0, not NaN.

    >>> orth_dist(2.0 * torch.eye(2))
    tensor(4.2426)
    """
    matrix = matrix.flatten(1)
    matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    return _length(matrix @ matrix.T - torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))


def _length(difference: Tensor) -> Tensor:
    """The Frobenius norm, whose gradient at 0 is 0."""
    length: Tensor = torch.linalg.vector_norm(difference)
    return length


def _identity_at(place: int, size: int, like: Tensor) -> Tensor:
    """The identity (size, size) at one of the places of the last dimension of `like`, 0 elsewhere."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    return identity.unsqueeze(-1) * (torch.arange(like.shape[-1], device=like.device) == place)


def _per_dimension(value: Sequence[int] | int, dimensions: int) -> Sequence[int]:
    return (value,) * dimensions if isinstance(value, int) else value


class OrthogonalConv(Method):
    """Push every convolution towards an orthogonal one: all its singular values towards 1.

    Use it against vanishing and exploding gradients and for robustness: a network of near-isometries changes no more
    than its input does. `strength` trades accuracy for orthogonality; a small penalty keeps a layer nearly isometric
    whatever the size of the image.

        loss = task + strength * sum_layers (||conv(K, K, stride=S, padding=P) - I_0||_F^2 - max(0, M - C S^2))

    strength: at least 0, 1e-1 to 1e3 in the paper; where: which layers, all `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d` by
    default; of what it selects, the weights of convolutions count (transposed ones too, if it names them). Grouped and
    depthwise convolutions are made orthogonal group by group. Exact for circular padding; zero padding loses the
    borders.

    Cost: one small convolution a layer and step, independent of image and batch size.
    Reference: Achour, Malgouyres, Mamalet 2021, arXiv 2108.05623; the penalty is Wang et al. 2020, arXiv 1911.12207.

    >>> recipe = tikhon.Recipe(tikhon.OrthogonalConv(strength=0.1))
    """

    card = Card(
        title="Existence, Stability and Scalability of Orthogonal Convolutional Neural Networks",
        authors="Achour, Malgouyres, Mamalet",
        year=2021,
        arxiv="2108.05623",
        problems=("robustness", "stability", "overfitting"),
        formula=r"L = \mathrm{task} + \lambda\sum_l\lVert\mathrm{conv}(K_l,K_l,S,P)-I_0\rVert_F^2 - (M-CS^2)_+",
        claim="The penalty is stable: a small value keeps layers nearly isometric whatever the size of the image; "
        "its strength trades accuracy for robustness.",
        helps="Deep convolutional networks; robustness to small changes of the input.",
        hurts="Layers that must amplify or drop directions: large strengths cost accuracy.",
        cost="One small convolution a layer and step.",
    )

    def __init__(self, strength: Strength = 0.1, where: Where = (nn.Conv1d, nn.Conv2d, nn.Conv3d)) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.where = where

    def check(self, model: nn.Module) -> None:
        if not any(map(_is_kernel, select(model, self.where))):
            raise TikhonError(
                f"{self.key} acts on convolutions, and where={self.where!r} selects none of their weights."
            )

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        layers = {one.name: one for one in step.select(self.where) if _is_kernel(one)}
        penalties = [_layer_orthogonality(one) for one in layers.values()]
        if not penalties:
            return {}
        return {"distance": Term(torch.stack(penalties).sum(), self.strength, per_sample=False)}


def _is_kernel(chosen: Selected) -> bool:
    return isinstance(chosen.module, _ConvNd) and chosen.attribute == "weight"


def _layer_orthogonality(chosen: Selected) -> Tensor:
    layer = chosen.module
    assert isinstance(layer, _ConvNd)
    return orthogonality(chosen.weight, layer.stride, layer.dilation, layer.groups)
