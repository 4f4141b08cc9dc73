"""PerpGrad: gradients without their component along the weights, so that logits are not merely scaled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Where, select
from tikhon.core.step import Step
from tikhon.math.precision import at_least_float32, largest_magnitudes


def orthogonal_to(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """g - (<w, g> / <w, w>) w for every pair of tensors (Prieto et al. 2025, arXiv 2501.04697, definition of ⟂Grad).

    weights, gradients: one pair of equal shape a parameter. Returns new tensors, in float32 at least, whose inner
    product with the weights is 0. Weights that are zero have no direction: their gradient is returned as it is.

    >>> orthogonal_to([torch.tensor([1.0, 0.0])], [torch.tensor([3.0, 4.0])])
    [tensor([0., 4.])]
    """
    weights = [at_least_float32(one) for one in weights]
    gradients = [at_least_float32(one) for one in gradients]
    if not weights:
        return []
    # Directions with a largest element of 1, because the squares of small weights would underflow: <d, d> >= 1.
    directions = torch._foreach_div(weights, largest_magnitudes(weights).unbind())
    along = [
        product.sum() / square.sum().clamp_min(1.0)
        for product, square in zip(
            torch._foreach_mul(directions, gradients), torch._foreach_mul(directions, directions), strict=True
        )
    ]
    return list(torch._foreach_sub(gradients, torch._foreach_mul(directions, along)))


def with_norms_of(tensors: Sequence[Tensor], references: Sequence[Tensor]) -> list[Tensor]:
    """Every tensor scaled to the norm of its reference.

    One that is but the rounding error of a projection, shorter than its reference by the tensor's precision, has no
    direction worth scaling and is returned as it is.

    >>> with_norms_of([torch.tensor([0.0, 4.0])], [torch.tensor([3.0, 4.0])])
    [tensor([0., 5.])]
    """
    if not tensors:
        return []
    wanted = torch._foreach_norm([at_least_float32(one) for one in references])
    factors = [
        torch.where(norm > 8.0 * torch.finfo(norm.dtype).eps * aim, aim / norm, torch.ones_like(norm))
        for norm, aim in zip(torch._foreach_norm(list(tensors)), wanted, strict=True)
    ]
    return list(torch._foreach_mul(list(tensors), factors))


class PerpGrad(Method):
    """Project each parameter's gradient onto what is orthogonal to the parameter.

    Use it where a network fits its training set and then only grows more certain (long training without weight decay):
    it stops the scaling of weights and lets a generalising solution be found sooner. Not where the scale of the weights
    has to be learned, as in regression; not on scale-invariant layers, whose gradients are orthogonal anyway.

        g <- g - (<w, g> / <w, w>) w     for every parameter tensor w

    where: which parameters, all by default, each tensor by itself as in the official code (the paper's formula has one
    vector of all parameters). A tensor of a single element, which would never move again, is left alone; so is one
    that is all zero. rescale: also restore the gradient's norm, as the official code does and the paper does not.

    Cost: a few elementwise passes over the gradients. Weight decay and momentum of the optimizer come after.
    Reference: Prieto, Barsbey, Mediano, Birdal 2025, arXiv 2501.04697.

    >>> recipe = tikhon.Recipe(tikhon.PerpGrad())
    """

    card = Card(
        title="Grokking at the Edge of Numerical Stability",
        authors="Prieto, Barsbey, Mediano, Birdal",
        year=2025,
        arxiv="2501.04697",
        problems=("overfitting", "stability", "speed"),
        formula=r"g \leftarrow g - \frac{\langle w, g\rangle}{\langle w, w\rangle}\, w",
        claim="Generalises with little or no delay on grokking tasks, without weight decay.",
        helps="Long training past a perfect fit, without weight decay.",
        hurts="Regression and other tasks that must learn the scale of the weights.",
        cost="A few elementwise passes over the gradients.",
        neutral="",
    )
    slots = {"gradients": "project"}
    needs = frozenset({"plain weights"})
    exempt = {"neutral": "a projection has no strength; use tk.During for a part of training"}

    def __init__(self, where: Where = "all", rescale: bool = False) -> None:
        super().__init__()
        self.where = where
        self.rescale = rescale

    def check(self, model: nn.Module) -> None:
        for one in select(model, self.where):
            if one.leaf_name != one.attribute:
                raise TikhonError(
                    f"{self.key} projects the gradients of plain weights, and {one.name} is re-parameterised: the "
                    "direction of its parts is not that of the weight. Leave it out with where=, or remove the "
                    "parametrization."
                )

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        leaves = [one.leaf for one in parameters if one.leaf.numel() > 1]
        raw = [leaf.grad for leaf in leaves if leaf.grad is not None]
        if not raw:
            return
        projected = orthogonal_to(leaves, raw)
        if self.rescale:
            projected = with_norms_of(projected, raw)
        torch._foreach_copy_(raw, projected)
