"""DHSPG: choose the redundant units of the whole network, shrink only them to zero, then really remove them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Snapshot, Where
from tikhon.core.pruning import remove
from tikhon.core.removable import Removable, find_removable
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked, stepwise
from tikhon.core.units import unit_products

AFTER_WARM_UP = stepwise({0.0: 0.0, 0.1: 1e-3})


def redundancy(norms: Tensor, cosines: Tensor, widths: Tensor) -> Tensor:
    """How dispensable each unit is: half for heading to the origin, half for small weights (by the official code).

        score = c / (2 ||c||) + m / (2 ||m||),   c_j = cos(x_j, g_j),   m_j = 1 / (||x_j|| / width_j + 1e-6)

    norms: ||x_j||, (n,); cosines: of a unit's weights with their gradient, (n,), 1 where descent leads straight to the
    origin; widths: how many parameters a unit has, (n,). Returns (n,), larger for what can rather go.

    >>> redundancy(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 0.0]), torch.ones(2))
    tensor([0.9851, 0.1213])
    """
    small = 1.0 / (norms / widths + 1e-6)
    return 0.5 * nn.functional.normalize(cosines, dim=0) + 0.5 * nn.functional.normalize(small, dim=0)


def redundant_units(scores: Tensor, sizes: Sequence[int], share: float, multiple: int = 1) -> Tensor:
    """The share of all units with the highest scores, but so that every layer keeps some.

    scores: (n,), layer after layer; sizes: units of each layer, n together; share: in [0, 1), rounded down to units;
    multiple: a layer keeps a multiple of this many, to the nearest, at least one times it; a layer of no more units
    keeps all. Returns (n,), bool.

    >>> redundant_units(torch.tensor([3.0, 9.0, 1.0, 8.0, 7.0]), sizes=(3, 2), share=0.6)
    tensor([False,  True, False,  True, False])
    """
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.topk(int(len(scores) * share)).indices] = True
    layers = []
    for layer, first in zip(scores.split(list(sizes)), chosen.split(list(sizes)), strict=True):
        kept = ((~first).sum() / multiple).round().clamp_min(1) * multiple
        layers.append((layer.argsort().argsort() >= kept) & (len(layer) > multiple))
    return torch.cat(layers)


def dual_strengths(
    norms: Tensor, products: Tensor, squares: Tensor, strength: float | Tensor, amplify: float, cap: float
) -> Tensor:
    """lambda_g: enough to shrink a unit that descent would let grow, not so much that the step no longer descends.

        lambda_g = clip(amplify * low, strength, cap * strength)   where <x, g> < 0, otherwise strength,
        low = -<x, g> / ||x||,  high = -||g||^2 ||x|| / <x, g>,   and (low + high) / 2 where that is high or more

    norms: ||x||, products: <x, g>, squares: ||g||^2, each (n,); amplify: at least 1; cap: at least 1. Returns (n,).
    Homogeneous of degree 1 in g and strength: with steps r g and r * strength it returns r lambda_g. (Chen et al. 2023,
    arXiv 2303.06862.)

    >>> dual_strengths(torch.ones(2), torch.tensor([1.0, -0.5]), torch.ones(2), strength=0.1, amplify=1.1, cap=10.0)
    tensor([0.1000, 0.5500])
    """
    strength = torch.as_tensor(strength, dtype=norms.dtype, device=norms.device)
    grows = (products < 0) & (norms > 0)
    against = torch.where(grows, -products, 1.0)
    low = against / norms.where(grows, 1.0)
    high = squares * norms / against
    raised = (amplify * low).clamp(strength, cap * strength)
    return torch.where(grows, torch.where(raised >= high, 0.5 * (low + high), raised), strength)


class DHSPG(Method):
    """Train once to a network of which a chosen share of all units is zero; `export` removes them.

    Use it to make a network smaller and faster without fine-tuning and without a budget for each layer: at the end of
    the warm-up the most redundant units of the whole network are chosen, and only these are shrunk (dual half-space
    projected gradient). All others train as if nothing were there. A unit is a row or filter in every layer that feeds
    it, its bias, its batch norm's scale and shift; layers coupled by residual additions share their units, hidden units
    of transformer layers count, and what cannot be removed is left alone.

        x' = x^ - r lambda_g x / ||x||,   then x' = 0 where <x', x> < epsilon ||x||^2

    x is a chosen unit before the optimizer's step, x^ after it. The direction that `lambda_g` answers to is the step
    that was taken, (x - x^) / r, which is the gradient for plain SGD and its variant for other optimizers.

    remove: share of all units, in [0, 1): penalties end when it is reached; strength: lambda >= 0, of which r is the
    learning rate. It is 0 in the first tenth of training, and the first step at which it is not chooses the units; a
    norm shrinks by about r lambda a step, so short training needs far more than the paper's 1e-3. epsilon: below 1;
    larger zeroes earlier, negative later; amplify, cap: of lambda_g, see `dual_strengths` (the code has 2 and 10 for
    SGD, 20 and 1000 for Adam); tolerance: share chosen beyond `remove` so that not every chosen unit must arrive (0.05
    in the code); multiple: every layer keeps a multiple of this many units; where: whose weights choose the layers.

    Cost: a copy of the chosen layers' weights during the step, and a few passes over them.
    Reference: Chen, Liang, Ding, Zhu, Zharkov 2023, arXiv 2303.06862; scores by the official code.

    >>> recipe = tikhon.Recipe(tikhon.DHSPG(remove=0.5))
    """

    card = Card(
        title="OTOV2: Automatic, Generic, User-Friendly",
        authors="Chen, Liang, Ding, Zhu, Zharkov",
        year=2023,
        arxiv="2303.06862",
        problems=("compression", "speed"),
        formula=r"x' = \hat x - \eta\lambda_g\frac{x}{\lVert x\rVert},\quad x'=0\ \text{where}\ "
        r"\langle x',x\rangle<\varepsilon\lVert x\rVert^2",
        claim="One training run gives a compact network without fine-tuning, at an accuracy like the state of the art.",
        helps="Over-wide networks, and a known share of units to save.",
        hurts="Short training: chosen units that keep wanting to grow are held back rather than removed.",
        cost="A copy of the chosen layers' weights during the step, and a few passes over them.",
        neutral="strength=0",
    )
    slots = {"gradients": "noise", "after_step": "map", "export": "prune"}
    needs = frozenset({"zero-keeping weights"})

    def __init__(
        self,
        remove: Strength = 0.5,
        strength: Strength = AFTER_WARM_UP,
        epsilon: Strength = 0.0,
        amplify: Strength = 1.1,
        cap: Strength = 10.0,
        tolerance: Strength = 0.0,
        multiple: int = 1,
        where: Where = "weights",
    ) -> None:
        super().__init__()
        self.remove = checked("remove", remove, low=0.0, high=0.999)
        self.strength = checked("strength", strength, low=0.0)
        self.epsilon = checked("epsilon", epsilon, high=1.0)
        self.amplify = checked("amplify", amplify, low=1.0)
        self.cap = checked("cap", cap, low=1.0)
        self.tolerance = checked("tolerance", tolerance, low=0.0, high=1.0)
        if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
            raise TikhonError(f"multiple must be a positive integer, not {multiple!r}.")
        self.multiple, self.where = multiple, where
        self.redundant = Snapshot()
        """Once chosen: group name -> which of its units are to go."""
        self.plan: dict[str, Tensor] = {}
        """After export: group name -> kept units, for `tikhon.core.pruning.apply_plan` on a fresh model."""
        self._removable = Removable()
        self._before: list[list[Tensor]] = []

    def check(self, model: nn.Module) -> None:
        # Here and not in `prepare`: this is the model as it was written, before any surgery that tracing cannot read.
        self._removable = find_removable(model, self.where, self.key)

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        # No gradient is changed: the weights are kept until the optimizer has moved them.
        if step.value(self.strength) or self.redundant.tensors:
            self._before = [[leaf.detach().clone() for leaf in leaves] for _, leaves in self._removable.owned(step)]

    def after_step(self, model: nn.Module, step: Step) -> None:
        before, self._before = self._before, []
        if not before:
            return
        groups, members = zip(*self._removable.owned(step), strict=True)
        sizes = [group.size for group in groups]
        moves = [torch._foreach_sub(x, leaves) for x, leaves in zip(before, members, strict=True)]
        squares = torch.cat([unit_products(x, x) for x in before])
        products = torch.cat([unit_products(x, move) for x, move in zip(before, moves, strict=True)])
        lengths = torch.cat([unit_products(move, move) for move in moves])
        norms, zero = squares.sqrt(), squares == 0
        if not self.redundant.tensors:
            cosines = products / (norms * lengths.sqrt()).clamp_min(torch.finfo(norms.dtype).tiny)
            widths = [norms.new_full((len(x[0]),), sum(rows[0].numel() for rows in x)) for x in before]
            share = min(step.value(self.remove) + step.value(self.tolerance), 0.999)
            scores = redundancy(norms, cosines, torch.cat(widths))
            found = redundant_units(scores, sizes, share, self.multiple).split(sizes)
            self.redundant.take({group.name: mask for group, mask in zip(groups, found, strict=True)})
        redundant = torch.cat([self.redundant.tensors[group.name] for group in groups])
        wanted = math.ceil(step.value(self.remove) * len(zero) - 1e-9)  # 0.7 * 10 is a little more than 7
        shrunk = redundant & (zero.sum() < wanted)
        rates = [torch.as_tensor(step.learning_rate(leaves[0]), dtype=torch.float64) for leaves in members]
        each = torch.cat([rate.to(norms).expand(size) for rate, size in zip(rates, sizes, strict=True)])
        pull = dual_strengths(
            norms, products, lengths, step.value(self.strength) * each, step.value(self.amplify), step.value(self.cap)
        )
        factors = torch.where(shrunk, pull / (norms + 1e-8), 0.0)
        turned = squares - products - factors * squares < step.value(self.epsilon) * squares  # <x', x> by its parts
        gone = (redundant & zero) | (shrunk & turned)
        for leaves, x, factor, silent in zip(members, before, factors.split(sizes), gone.split(sizes), strict=True):
            for leaf, old in zip(leaves, x, strict=True):
                shape = (-1, *[1] * (leaf.ndim - 1))
                leaf.sub_(factor.reshape(shape) * old).masked_fill_(silent.reshape(shape), 0.0)

    def export(self, model: nn.Module) -> nn.Module:
        self.plan = self._removable.plan(model)
        return remove(model, self.plan, self._removable.part)
