"""How hard samples are for a network: how far off its predictions are, and how strongly they pull at its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32


def _errors(probabilities: Tensor, labels: Tensor) -> Tensor:
    dense = labels if labels.is_floating_point() else F.one_hot(labels, probabilities.shape[1])
    return probabilities - dense.to(probabilities.dtype)


def el2n(probabilities: Tensor, labels: Tensor) -> Tensor:
    """||p - y||_2 of every sample (Paul et al. 2021, arXiv 2107.07075, definition of EL2N).

    probabilities: (N, K); labels: (N,) indices or (N, K) probabilities. Returns (N,), in [0, sqrt(2)].

    >>> el2n(torch.tensor([[0.6, 0.4]]), torch.tensor([1]))
    tensor([0.8485])
    """
    return torch.linalg.vector_norm(_errors(probabilities, labels), dim=1)  # type: ignore[no-any-return]


def el1n(probabilities: Tensor, labels: Tensor) -> Tensor:
    """||p - y||_1 of every sample; shapes as in `el2n`. Returns (N,), in [0, 2]."""
    return _errors(probabilities, labels).abs().sum(1)


def max_margin(probabilities: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} p_k - p_y of every sample: positive where the prediction is wrong.

    probabilities: (N, K), K at least 2; labels: (N,) indices. Returns (N,), in [-1, 1].
    """
    own = F.one_hot(labels, probabilities.shape[1]).bool()
    return probabilities.masked_fill(own, -torch.inf).amax(1) - probabilities.gather(1, labels[:, None])[:, 0]


def sum_margin(probabilities: Tensor, labels: Tensor) -> Tensor:
    """sum_{k != y} (p_k - p_y) of every sample, in [1 - K, 1]; shapes as in `max_margin`."""
    return probabilities.sum(1) - probabilities.shape[1] * probabilities.gather(1, labels[:, None])[:, 0]


def last_layer_gradient_norms(probabilities: Tensor, labels: Tensor, features: Tensor, bias: bool = True) -> Tensor:
    """The gradient norm of every sample's cross-entropy by the last layer, a linear one: ||p - y|| sqrt(||h||^2 + 1).

    probabilities: softmax of the layer's output (N, K); labels: as in `el2n`; features: h, what the layer reads, (N,
    D); bias: whether the layer has one, otherwise without the 1. Returns (N,), exactly what `grand` gives for these
    parameters alone, at no cost.

    >>> last_layer_gradient_norms(torch.tensor([[0.6, 0.4]]), torch.tensor([1]), torch.zeros(1, 3))
    tensor([0.8485])
    """
    squares = at_least_float32(features).square().sum(1)
    return el2n(probabilities, labels) * (squares + 1.0 if bias else squares).sqrt()


def grand(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    chunk: int = 64,
) -> Tensor:
    """||d loss_i / d parameters||_2 of every sample (Paul et al. 2021, definition of GraNd).

    model: in eval mode, so that a sample's gradient is its own; inputs, labels: (N, ...); loss: of a batch, to a
    scalar; chunk: how many gradients are in memory at once. All parameters that require a gradient count. Returns (N,).

    >>> grand(nn.Linear(2, 2).eval(), torch.zeros(3, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([3])
    """
    if model.training:
        raise TikhonError("grand needs the model in eval mode: call model.eval() before, and model.train() after it.")
    parameters = {name: one.detach() for name, one in model.named_parameters() if one.requires_grad}

    def sample_loss(weights: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (one[None],)), label[None])

    def norm(one: Tensor, label: Tensor) -> Tensor:
        gradients = grad(sample_loss)(parameters, one, label)
        return torch.cat([gradient.flatten() for gradient in gradients.values()]).square().sum().sqrt()

    return vmap(norm, chunk_size=chunk)(inputs, labels)
