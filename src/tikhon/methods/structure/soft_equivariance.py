"""Soft equivariance: a penalty on how far layers are from several symmetries, which finds out which of them hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import find_module
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.terms import Term, Terms
from tikhon.math.groups import checked_symmetry, copies, equivariant_part, generated, regular

LEAST = 1e-12  # of a violation, where violations are compared: one of 0 would be 0 / 0


def violation(weight: Tensor, bias: Tensor | None, outgoing: Tensor, ingoing: Tensor) -> Tensor:
    """(1/2) ||W - P W||^2 + (1/2) ||b - P b||^2: how far a layer is from commuting with a group. A scalar, at least 0.

    weight: (o, i); bias: (o,) or None; outgoing, ingoing: as for `equivariant_part`. Source: Kim, Lee, Yang, Lee 2023,
    arXiv 2306.00356.
    """
    total = 0.5 * (weight - equivariant_part(weight, outgoing, ingoing)).square().sum()
    if bias is not None:
        total = total + 0.5 * (bias - (outgoing @ bias).mean(0)).square().sum()
    return total


def relaxed(violations: Tensor, power: float) -> Tensor:
    """(R_j / min_i R_i)^-p: 1 for the symmetry that is violated least, the less the more another is violated.

    violations: (J,), at least 0; power: at least 0. Returns (J,), in (0, 1].

    >>> relaxed(torch.tensor([0.1, 0.4]), power=2.0)
    tensor([1.0000, 0.0625])
    """
    kept = violations.clamp_min(LEAST)
    return (kept / kept.min()) ** -power


class EquivariancePenalty(Method):
    """Pull the layers of an MLP towards several symmetries at once, and let go of those that the data break.

    Use it with few samples of something that may be symmetric, exactly, nearly or not at all: rotations, mirrors,
    exchanges. `violations(model)` then tells which. Not where a symmetry is known to be exact: build it
    into the network. Not where none holds.

        loss = task + strength * sum_j c_j R_j,   R_j = sum_l (1/2) ||W_l - P_j W_l||^2 + (1/2) ||b_l - P_j b_l||^2
        c_j = 1 for the first `warmup` steps, then (R_j / min_i R_i)^-power as they are by then

    symmetries: name -> (rho_in, rho_out), orthogonal matrices (G, d, d) of a finite group, by which inputs and outputs
    turn, the first of which differ from each other; of a continuous group a finite one within it. Hidden layers hold
    copies of the regular representation of the group that all rho_in generate together, which elementwise activations
    respect: their widths must be multiples of its order. strength: at least 0, to be searched: 0.03; power: at least 0,
    2: 0 keeps all strengths equal; warmup: steps, at least 1, 50 as published, better as many as a rough fit takes;
    layers: names of the chained `nn.Linear`, all of the model in order by default.

    Cost: 2 G products of matrices a layer, symmetry and step. Reference: Kim, Lee, Yang, Lee 2023, arXiv 2306.00356,
    which also has continuous groups and other hidden representations. Here the violations at the end of the warm-up
    decide.

    >>> turns = torch.stack([torch.eye(2), -torch.eye(2)])
    >>> even = torch.ones(2, 1, 1)
    >>> recipe = tikhon.Recipe(
    ...     tikhon.EquivariancePenalty({"half turn": (turns, even)})
    ... )
    """

    card = Card(
        title="Regularizing Towards Soft Equivariance Under Mixed Symmetries",
        authors="Kim, Lee, Yang, Lee",
        year=2023,
        arxiv="2306.00356",
        problems=("overfitting",),
        formula=r"L = \mathrm{task} + \lambda\sum_j c_j\sum_l\tfrac12\lVert W_l - P_j W_l\rVert^2",
        claim="Better accuracy than prior approaches where some of several symmetries hold only nearly, and it finds "
        "out which.",
        helps="Few samples of functions, or motions, with symmetries of which some are broken.",
        hurts="Symmetries that do not hold at all; wide layers and large groups cost.",
        cost="Two products of matrices an element of the group, layer and step.",
    )
    needs = frozenset({"lasting layers"})
    slots = {"prepare": "tap", "after_step": "average"}  # nothing is changed: last, where weights are as they stay

    def __init__(
        self,
        symmetries: Mapping[str, tuple[Tensor, Tensor]],
        strength: Strength = 0.03,
        power: Strength = 2.0,
        warmup: int = 50,
        layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.power = checked("power", power, low=0.0)
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 1:
            raise TikhonError(f"warmup must be a positive number of steps, not {warmup!r}.")
        if not symmetries:
            raise TikhonError("symmetries must name at least one group, as name -> (rho_in, rho_out).")
        self.warmup, self.layers = warmup, None if layers is None else tuple(layers)
        self.symmetries = {name: checked_symmetry(name, *pair) for name, pair in symmetries.items()}
        self.factors: Tensor
        self.register_buffer("factors", torch.ones(len(self.symmetries)))

    def check(self, model: nn.Module) -> None:
        chain = self._chain(model)
        for (before, one), (after, other) in pairwise(chain.items()):
            if one.out_features != other.in_features:
                raise TikhonError(
                    f"{self.key}: {after!r} does not take the {one.out_features} features that {before!r} gives. Name "
                    "the layers of one chain in layers=."
                )
        *hidden, last = chain.values()
        ends = ((*hidden, last)[0].in_features, last.out_features)
        for name, (ingoing, outgoing) in self.symmetries.items():
            sizes = (ingoing.shape[1], outgoing.shape[1])
            if sizes != ends:
                raise TikhonError(
                    f"{self.key}: {name!r} acts on {sizes[0]} inputs and {sizes[1]} outputs, but the layers have "
                    f"{ends[0]} and {ends[1]}."
                )
        order = len(self._together())
        for layer in hidden:
            if layer.out_features % order:
                raise TikhonError(
                    f"{self.key}: a hidden layer of {layer.out_features} features cannot hold copies of the {order} "
                    f"elements that {', '.join(map(repr, self.symmetries))} generate: make its width a multiple."
                )

    def prepare(self, model: nn.Module) -> None:
        layers = list(self._chain(model).values())
        together = self._together()
        for number, (ingoing, outgoing) in enumerate(self.symmetries.values()):
            inner = regular(ingoing, together)
            hidden = [copies(inner, layer.out_features // len(together)) for layer in layers[:-1]]
            for place, matrices in enumerate((ingoing, *hidden, outgoing)):
                # made from the caller's data, which is given again on resume
                self.register_buffer(f"group{number}_{place}", matrices.to(layers[0].weight), persistent=False)

    def _together(self) -> Tensor:
        """The group that the symmetries of the inputs generate."""
        return generated(torch.cat([ingoing for ingoing, _ in self.symmetries.values()]))

    def _chain(self, model: nn.Module) -> dict[str, nn.Linear]:
        """The layers by name, in order."""
        if self.layers is None:
            found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        else:
            named = {name: find_module(model, name, self.key) for name in self.layers}
            found = {name: module for name, module in named.items() if isinstance(module, nn.Linear)}
            if len(found) < len(named):
                raise TikhonError(f"{self.key} acts on nn.Linear, and {min(named.keys() - found.keys())!r} is none.")
        if not found:
            raise TikhonError(f"{self.key} found no nn.Linear in {type(model).__name__} to act on.")
        return found

    def violations(self, model: nn.Module) -> dict[str, Tensor]:
        """R_j of every symmetry, without c_j: what tells how far each of them holds."""
        layers = list(self._chain(model).values())
        found = {}
        for number, name in enumerate(self.symmetries):
            groups = [self.get_buffer(f"group{number}_{place}") for place in range(len(layers) + 1)]
            parts = [
                violation(layer.weight, layer.bias, outgoing, ingoing)
                for layer, (ingoing, outgoing) in zip(layers, pairwise(groups), strict=True)
            ]
            found[name] = torch.stack(parts).sum()
        return found

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        weighted = zip(self.factors.unbind(), self.violations(model).items(), strict=True)
        return {name: Term(factor * value, self.strength, per_sample=False) for factor, (name, value) in weighted}

    def after_step(self, model: nn.Module, step: Step) -> None:
        if step.number + 1 == self.warmup:
            values = torch.stack(list(self.violations(model).values()))
            self.factors.copy_(relaxed(values, step.value(self.power)))
