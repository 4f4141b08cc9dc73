"""PiSSA: fine-tune the principal singular directions of every weight, and leave the rest as it was."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.adapters import Adapter, adapt, check_adaptable, checked_rank, merge
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Where, select
from tikhon.core.strength import checked
from tikhon.math.singular import leading_singular


def pissa_factors(
    weight: Tensor,
    rank: int,
    scale: float = 1.0,
    iterations: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """A = sqrt(S_r / scale) V_r^T and B = U_r sqrt(S_r / scale), from W = U S V^T (Meng, Wang, Zhang 2024).

    weight: (out, in); rank: r, at most the smaller of both; scale: of the product where the weight is made of it, 1 in
    the paper; iterations: None for the exact components; else power iterations from directions that `generator` draws,
    on the CPU. Returns A (r, in) and B (out, r), up to the sign of each component; scale * B A is the best
    approximation of rank r, or near to it.

    >>> a, b = pissa_factors(torch.diag(torch.tensor([4.0, 1.0])), rank=1)
    >>> (b @ a).round()
    tensor([[4., 0.],
            [0., 0.]])
    """
    u, s, v = leading_singular(weight, rank, iterations, generator)
    root = (s / scale).sqrt()
    return (root[:, None] * v).to(weight.dtype), (u * root).to(weight.dtype)


def difference_lora(a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> tuple[Tensor, Tensor]:
    """The trained change as a LoRA of rank 2r for the weights as they were: B' A' = B A - B_0 A_0.

    a, a0: (r, in), trained and initial; b, b0: (out, r). Returns A' (2r, in) and B' (out, 2r).
    """
    return torch.cat([a, a0]), torch.cat([b, -b0], dim=1)


class PiSSA(Method):
    """Fine-tune a pretrained network by its weights' largest singular directions alone.

    Use it to adapt a large model with few trained parameters and little memory for the optimizer: at the same rank it
    learns faster than LoRA, whose factors begin at noise and zero. Not for training from scratch, whose weights have no
    principal directions worth the name.

        W = W_res + (alpha / r) B A,   B A: the r largest singular components of W at the start, over alpha / r

    rank: r, at most the smaller side of every adapted weight; alpha: numerator of the scale, r by default, so that the
    scale is 1 as in the paper; where: the adapted weights, those of `nn.Linear` by default, convolutions as matrices;
    freeze: whether everything else stops training until export; let a new head train with
    `model.head.requires_grad_()` after prepare; iterations: None for the exact start; a number, 4 to 16 in the paper,
    for that many power iterations of a randomised decomposition, much faster, whose last components mix with those
    that follow them, the more the flatter the singular values and the fewer the iterations.

    The output at the start is that of the pretrained network, to rounding. Export merges, and the result is of the size
    of the original. Random directions are the same in every run.

    Cost: once an eigendecomposition of every adapted weight, or a few products with r columns; a product of the
    factors a step.
    Reference: Meng, Wang, Zhang 2024, arXiv 2404.02948.

    >>> recipe = tikhon.Recipe(tikhon.PiSSA(rank=8))
    """

    card = Card(
        title="PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models",
        authors="Meng, Wang, Zhang",
        year=2024,
        arxiv="2404.02948",
        problems=("overfitting", "speed"),
        formula=r"W = W_{res} + BA,\quad B=U_rS_r^{1/2},\ A=S_r^{1/2}V_r^T",
        claim="Converges much faster than LoRA, and to a better end, at equal numbers of parameters.",
        helps="Fine-tuning of pretrained networks with little memory.",
        hurts="Training from scratch; tasks that need directions the pretrained weights lack.",
        cost="An SVD of every adapted weight once, and a product of small factors a step.",
        neutral="",
        example="rank=2",
    )
    slots = {"prepare": "parametrize", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights", "zero-keeping weights"})
    exempt = {"neutral": "a weight that trains in factors does not train as itself"}

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        where: Where = nn.Linear,
        freeze: bool = True,
        iterations: int | None = None,
    ) -> None:
        super().__init__()
        if alpha is not None:
            checked("alpha", alpha, low=1e-6)
        if iterations is not None and (
            isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0
        ):
            raise TikhonError(f"iterations must be None or an integer of at least 0, not {iterations!r}.")
        self.rank, self.where, self.freeze = checked_rank(rank), where, freeze
        self.scale = 1.0 if alpha is None else alpha / rank
        self.iterations = iterations
        self._frozen: list[nn.Parameter] = []

    def check(self, model: nn.Module) -> None:
        check_adaptable(model, self.where, self.rank, self.key)

    def prepare(self, model: nn.Module) -> None:
        chosen, generator = [], torch.Generator().manual_seed(0)  # where the iteration starts is nearly forgotten
        for one in select(model, self.where):
            weight = one.leaf.detach()
            a, b = pissa_factors(weight.flatten(1), self.rank, self.scale, self.iterations, generator)
            chosen.append((one, Adapter(weight, a, b, scale=self.scale)))
        self._frozen = adapt(chosen, model, self.freeze)

    def export(self, model: nn.Module) -> nn.Module:
        return merge(model, self._frozen)
