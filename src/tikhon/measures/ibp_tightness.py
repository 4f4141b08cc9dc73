"""Tightness of interval bounds: how much wider they are than the outputs that a network can reach."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.passes import eval_mode, evaluating
from tikhon.math.bounds import Interval
from tikhon.math.intervals import box_around

__all__ = ["ibp_tightness", "certified_accuracy"]

card = Card(
    title="Understanding Certified Training with Interval Bound Propagation",
    authors="Mao, Müller, Fischer, Vechev",
    year=2023,
    arxiv="2306.10426",
    problems=("robustness",),
    formula=r"\tau = \frac{|\prod_k W_k D_k|\,\epsilon}{\prod_k |W_k| D_k\,\epsilon}",
    claim="Falls with width and depth at initialisation and rises under interval bound training, at the price of "
    "accuracy; tight bounds are neither sufficient nor necessary for certified robustness.",
    helps="Networks that are to be certified by interval bounds: how far bounds are from the truth, and where training "
    "takes them.",
    hurts="Where it is read as robustness: a constant function has tight bounds.",
    cost="One pass of the interval and a gradient an output.",
    neutral="",
    kind="measure",
)


def ibp_tightness(model: nn.Module, inputs: Tensor, radius: Tensor | None = None) -> Tensor:
    """The true width of the outputs over the width that interval bounds give them, in boxes too small to reach a kink.

        tau = (|J| r) / (prod_k |W_k| D_k r),   J = prod_k W_k D_k

    D_k are the activation patterns at the input; without activations tau is exact in boxes of any size. It is 1 where
    interval bounds are exact and tends to 0 where they are useless. The model is taken as in eval mode.

    model: of layers that bounds know; inputs: (B, ...), floating point; radius: how far each entry may move, at least
    0, of the inputs' shape or one that broadcasts to it; only the ratios of its entries matter, and by default all are
    equal. Returns (B, K), in [0, 1]; 1 for an output that does not move. Raises `TikhonError` for a model with a layer
    that bounds do not know. Source: Mao, Müller, Fischer, Vechev 2023, arXiv 2306.10426, in the form that is local at
    an input. The official code measures differences to the score of the label, this function the scores themselves.

    >>> import torch, tikhon
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(2, 1, bias=False)).double()
    >>> for layer, weight in zip(model, ([[1.0], [1.0]], [[2.0, -1.0]])):
    ...     _ = layer.weight.data.copy_(torch.tensor(weight))
    >>> tikhon.ibp_tightness(model, torch.zeros(1, 1).double())
    tensor([[0.3333]], dtype=torch.float64)
    """
    with eval_mode(model), torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        radius = torch.ones_like(inputs) if radius is None else radius.to(inputs).expand_as(inputs)
        if not bool((radius >= 0).all()):
            raise TikhonError("The radius of a box must be at least 0 in every entry.")
        scores = model(inputs)
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise TikhonError("Tightness needs a model that returns scores of shape (B, K).")
        each = torch.eye(scores.shape[1]).to(scores)[:, None].expand(-1, len(scores), -1)
        (jacobian,) = torch.autograd.grad(scores, inputs, each, is_grads_batched=True)
    with evaluating(model):
        bound = model(Interval(inputs.detach(), radius, local=True)).radius
        reached = (jacobian.abs() * radius).flatten(2).sum(2).T
        return torch.where(bound > 0, reached / bound.where(bound > 0, 1.0), 1.0)


def certified_accuracy(
    model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, valid: tuple[float, float] | None = None
) -> float:
    """The share of samples for which interval bounds prove that no input within eps changes a right prediction.

    inputs: (B, ...); labels: (B,), int64; eps: at least 0, the greatest change of any entry of the input; valid: the
    least and greatest value that an entry may have. A lower bound, up to rounding, of the accuracy under any attack.
    The model is taken as in eval mode. Raises `TikhonError` for a model with a layer that bounds do not know.
    Source: Gowal et al. 2018, arXiv 1810.12715.

    >>> certified_accuracy(torch.nn.Flatten(), torch.tensor([[1.0, 0.0], [0.6, 0.4]]), torch.tensor([0, 0]), 0.2)
    0.5
    """
    if not eps >= 0:
        raise TikhonError(f"eps must be at least 0, not {eps}.")
    with evaluating(model):
        scores = model(Interval(*box_around(inputs, eps, valid)))
        over = scores.margins(F.one_hot(labels, scores.shape[1]).to(inputs))
        own = F.one_hot(labels, scores.shape[1]).bool()
        return float((over.masked_fill(own, -torch.inf).amax(1) < 0).double().mean())
