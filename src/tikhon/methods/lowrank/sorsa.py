"""SORSA: fine-tune the principal singular values and vectors of every weight, and keep the vectors orthonormal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikhon.core.adapters import Adapter, adapt, adapter_of, check_adaptable, checked_rank, merge
from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.parameters import Where, select
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Term, Terms
from tikhon.math.singular import leading_singular


def sorsa_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """A = V_r^T (r, in), s (r,) and B = U_r (out, r), from W = U S V^T (Cao 2024, arXiv 2409.00055).

    weight: (out, in); rank: r, at most the smaller of both. A and B up to the sign of each component.

    >>> a, s, b = sorsa_factors(torch.diag(torch.tensor([4.0, 1.0])), rank=1)
    >>> s
    tensor([4.])
    """
    u, s, v = leading_singular(weight, rank)
    return v.to(weight.dtype), s.to(weight.dtype), u.to(weight.dtype)


def nonorthonormality(rows: Sequence[Tensor]) -> Tensor:
    """The mean of ||Q Q^T - I||_F over matrices with rows that should be orthonormal; not squared (by its code).

    rows: matrices (r, n) of one r, for B its transpose, or several of one n as (..., r, n). Returns a scalar, at least
    0, whose gradient at 0 is 0.

    >>> nonorthonormality([torch.eye(1, 3), 2.0 * torch.eye(1, 3)])
    tensor(1.5000)
    """
    products = torch.cat([(matrix @ matrix.mT).reshape(-1, matrix.shape[-2], matrix.shape[-2]) for matrix in rows])
    identity = torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)
    lengths: Tensor = torch.linalg.vector_norm(products - identity, dim=(1, 2))
    return lengths.mean()


class SORSA(Method):
    """Fine-tune a pretrained network by singular values and vectors, with the vectors held near orthonormal.

    Use it like PiSSA, where fine-tuning forgets or overfits: orthonormal vectors keep what the adapted weight does to
    the lengths of features in its singular values, which are trained apart. Not for training from scratch.

        W = W_res + scale B diag(s) A,   loss = task + (strength / lr) mean(||A A^T - I||_F, ||B^T B - I||_F)

    rank: r, at most the smaller side of every adapted weight; strength: gamma, at least 0, 4e-4 in the paper; it is
    divided by the learning rate of the adapted weights, so that the pull of the penalty does not fade with it; alpha:
    the scale is alpha / r, 1 by default; where: the adapted weights, those of `nn.Linear` by default, convolutions as
    matrices; freeze: whether everything else stops training until export; let a new head train with
    `model.head.requires_grad_()` after prepare.

    Cost: an SVD of every adapted weight once; a product of the factors and two small Gram matrices a step.
    Reference: Cao 2024, arXiv 2409.00055; the norm is not squared and averaged, as in the official code.

    >>> recipe = tikhon.Recipe(tikhon.SORSA(rank=8))
    """

    card = Card(
        title="SORSA: Singular Values and Orthonormal Regularized Singular Vectors Adaptation of Large Language Models",
        authors="Cao",
        year=2024,
        arxiv="2409.00055",
        problems=("overfitting", "forgetting"),
        formula=r"W = W_{res} + B\,\mathrm{diag}(s)A,\quad L = \mathrm{task} + "
        r"\tfrac{\gamma}{\eta}\,\mathrm{mean}(\lVert AA^T-I\rVert_F, \lVert B^TB-I\rVert_F)",
        claim="Better than LoRA, PiSSA and full fine-tuning on mathematics with Llama 2.",
        helps="Fine-tuning of pretrained networks with few parameters.",
        hurts="Training from scratch; a strength that outweighs the task.",
        cost="An SVD of every adapted weight once; small products a step.",
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
        strength: Strength = 4e-4,
        alpha: float | None = None,
        where: Where = nn.Linear,
        freeze: bool = True,
    ) -> None:
        super().__init__()
        if alpha is not None:
            checked("alpha", alpha, low=1e-6)
        self.strength = checked("strength", strength, low=0.0)
        self.rank, self.where, self.freeze = checked_rank(rank), where, freeze
        self.scale = 1.0 if alpha is None else alpha / rank
        self._frozen: list[nn.Parameter] = []

    def check(self, model: nn.Module) -> None:
        check_adaptable(model, self.where, self.rank, self.key)

    def prepare(self, model: nn.Module) -> None:
        chosen = []
        for one in select(model, self.where):
            weight = one.leaf.detach()
            a, s, b = sorsa_factors(weight.flatten(1), self.rank)
            chosen.append((one, Adapter(weight, a, b, s, self.scale)))
        self._frozen = adapt(chosen, model, self.freeze)

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        chosen = step.select(self.where)
        alike: dict[tuple[int, int], tuple[Adapter, list[Tensor]]] = {}
        for one in chosen:
            adapter = adapter_of(one)
            alike.setdefault((adapter.rows, adapter.columns), (adapter, []))[1].append(one.leaf)
        rows: list[Tensor] = []
        for adapter, leaves in alike.values():
            a, b, _ = adapter.factors(torch.stack(leaves) if len(leaves) > 1 else leaves[0])
            rows += [a, b.mT]
        value = nonorthonormality(rows) / step.learning_rate(chosen[0].leaf)
        return {"orthonormality": Term(value, self.strength, per_sample=False)}

    def export(self, model: nn.Module) -> nn.Module:
        return merge(model, self._frozen)
