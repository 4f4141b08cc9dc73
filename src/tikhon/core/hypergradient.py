"""Hypergradients: how the validation loss after the step in hand depends on the strengths in it.

A step of gradient descent is w' = w - r grad O(w, s), r the learning rate of each parameter. With v the gradient of the
validation loss V, d V(w') / d s = -<r v, grad_w dO/ds>: greedy, one step long (Luketina et al. 2016, arXiv 1511.06727).

The products for all strengths need one backward pass, that of V. The network maps weights to outputs and features z; of
z as a function of w only the derivative t along u = r v is needed, a central difference of two passes without gradient
at w + e u and w - e u (as in DARTS, Liu et al. 2019, arXiv 1806.09055), in full precision whatever the caller's
autocast, because differences of rounded numbers are noise. What methods make of z is differentiated exactly, with z cut
off from the network: <dO/dz, t>, so that stopped and reversed gradients count as they do in training. Terms that look
into the network's graph (its derivative by the inputs), and networks in half precision, take a backward pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from tikhon.core.autocast import HALF, widened
from tikhon.core.batches import map_tensors
from tikhon.core.checkpointing import refuse_hidden_parameters
from tikhon.core.losses import Loss
from tikhon.core.objective import Objective, Parts, Total
from tikhon.core.passes import RandomState, eval_mode, frozen_statistics
from tikhon.core.run import Run
from tikhon.core.strength import Learned, resolve
from tikhon.core.taps import Feature
from tikhon.core.target import Target

FACTOR = 0.1
"""By what share a strength that enters its term other than by a product moves for a difference."""

SCALE = 1024.0
"""Of losses under autocast to float16, whose gradients are too small for it. What overflows all the same is skipped."""


Slope = tuple[str, float, Sequence[Tensor | None], Sequence[Tensor | None]]
"""Of a strength its name, what it is now, and the gradient of dO/ds by outputs and features and by leaves."""


@dataclass(frozen=True, eq=False)
class Pass:
    """The first pass of a step: what went in and what came out, and the target before and after methods saw it."""

    inputs: Any
    output: Tensor
    given: Target | None
    aim: Target | None
    total: Total | None
    ignored: bool
    random: RandomState


class Hypergradients:
    """d V(w') / d log s of all learned strengths, at the weights of the step in hand. Leaves everything as it was."""

    def __init__(self, run: Run, objective: Objective, base: Loss) -> None:
        self._run, self._objective, self._base = run, objective, base
        self._looked = False

    def __call__(self, seen: Pass, inputs: Any, target: Any) -> dict[str, Tensor]:
        """Scalars by METHOD/ARGUMENT, for those strengths that the step depends on.

        seen: of the training batch; inputs, target: a validation batch on the model's device.
        """
        run, objective = self._run, self._objective
        before = run.moment, run.features, objective.values
        random = RandomState.now(run.device)
        run.reads = set() if run.reads is None else run.reads
        try:
            with torch.enable_grad():
                leaves: list[Tensor] = [one.leaf for one in run.select("all")]
                slopes: list[Slope] = []
                if objective.plan.acts("parameter_terms"):
                    slopes += self._slopes(self._of_penalties, [], leaves)
                if seen.aim is not None and objective.plan.acts("targets", "terms", "evaluate"):
                    slopes += self._of_loss(seen, leaves)
                # The validation pass comes last: methods may keep what the training pass left inside the model.
                if not slopes and run.world == 1:
                    return {}
                return self._products(slopes, seen, leaves, self._direction(leaves, inputs, target))
        finally:
            random.restore()
            run.moment, run.features, objective.values = before
            objective.parts = None

    # The objective ---------------------------------------------------------------------------------------------------

    def _of_penalties(self) -> Parts:
        return {name: (term.strength, term.with_graph()) for name, term in self._objective.penalties().items()}

    def _of_loss(self, seen: Pass, leaves: list[Tensor]) -> list[Slope]:
        run, objective = self._run, self._objective
        given, final = seen.given, seen.aim
        cut: list[Tensor] = []
        if any(leaf.dtype in HALF for leaf in leaves) or _wants_gradient(seen.inputs):
            output = self._again(seen)
        else:
            output = _cut(seen.output, cut)
            run.features = {name: _cut_feature(one, cut) for name, one in run.features.items()}

        def evaluate() -> Parts:
            assert given is not None
            assert final is not None
            asked = any(moment == "targets" for _, moment in run.reads or ())
            parts: Parts = {}
            objective.parts = parts
            aim = objective.asked(output, given) if asked else final
            objective.again(output, aim, seen.total, seen.ignored)
            return parts

        return self._slopes(evaluate, cut, leaves)

    def _slopes(self, evaluate: Callable[[], Parts], cut: list[Tensor], leaves: list[Tensor]) -> list[Slope]:
        """The gradients of dO/ds; evaluate: the parts of the objective as functions of `cut` and `leaves`."""
        parts = evaluate()
        slopes: list[Slope] = []
        for strength, name in self._run.names.items():
            value = self._derivative(strength, parts, evaluate)
            if value is not None and value.requires_grad:
                gradients = self._gradients(value, [*cut, *leaves])
                slopes.append((name, self._run.clock.learned[strength], gradients[: len(cut)], gradients[len(cut) :]))
        return slopes

    def _derivative(self, strength: Learned, parts: Parts, evaluate: Callable[[], Parts]) -> Tensor | None:
        """dO/ds with its graph; None where O does not depend on s.

        A strength that only multiplies terms needs no more than their values. Otherwise it is a central difference,
        exact where O is at most quadratic in s.
        """
        clock, reads = self._run.clock, self._run.reads
        assert reads is not None
        moments = {moment for one, moment in reads if one is strength}
        if not moments:
            values = [value for factor, value in parts.values() if factor is strength]
            return reduce(add, values) if values else None
        now, task = clock.learned[strength], not moments.isdisjoint(("targets", "evaluate"))  # else no part of it moves

        def at(value: float) -> Tensor:
            try:
                clock.learned[strength] = value
                weighted = {name: resolve(factor, clock) * one for name, (factor, one) in evaluate().items()}
                return reduce(add, [one for name, one in weighted.items() if task or name != "task"], torch.zeros(()))
            finally:
                clock.learned[strength] = now

        low, high = max((1.0 - FACTOR) * now, strength.low), min((1.0 + FACTOR) * now, strength.high)
        return (at(high) - at(low)) / (high - low) if high > low else None

    def _gradients(self, value: Tensor, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """In float32 at least. The graph stays: methods may have kept parts of the training pass for their terms."""
        scale = SCALE if self._run.precision.dtype is torch.float16 else 1.0
        found = torch.autograd.grad(scale * value, inputs, retain_graph=True, allow_unused=True)
        return [None if one is None else (one.float() if one.dtype in HALF else one) / scale for one in found]

    # The network -----------------------------------------------------------------------------------------------------

    def _direction(self, leaves: list[Tensor], inputs: Any, target: Any) -> list[Tensor | None]:
        """u = r v: the mean over processes, which so agree. In eval mode, as the validation loss is measured."""
        run = self._run
        with eval_mode(run.model), run.passing.during(False):
            output = run.output(run.model, inputs)
            self._base.refuse(output, target)
            loss = self._base.mean(output, target)
        if not self._looked:
            refuse_hidden_parameters(loss, "recipe.tune")
            self._looked = True
        gradients = self._gradients(loss, leaves)
        if run.world > 1:
            gradients = _mean([torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True)])
        return [
            None if one is None else one * run.learning_rate(leaf) for one, leaf in zip(gradients, leaves, strict=True)
        ]

    def _products(
        self, slopes: list[Slope], seen: Pass, leaves: list[Tensor], along: list[Tensor | None]
    ) -> dict[str, Tensor]:
        """-s <u, grad dO/ds>, the sum over all that O is made of."""
        found: dict[str, Tensor] = {}
        moving = [(leaf, one) for leaf, one in zip(leaves, along, strict=True) if one is not None]
        tangents: list[Tensor] = []
        for name, strength, of_cut, of_leaves in slopes:
            if moving and not tangents and any(one is not None for one in of_cut):
                tangents = self._tangents(seen, [leaf for leaf, _ in moving], [one for _, one in moving])
            pairs = [*zip(of_leaves, along, strict=True), *zip(of_cut, tangents, strict=False)]
            products = [(one * other).sum() for one, other in pairs if one is not None and other is not None]
            product = -strength * reduce(add, products, torch.zeros((), device=self._run.device))
            found[name] = found[name] + product if name in found else product
        return found

    def _again(self, seen: Pass) -> Tensor:
        """The training pass once more, on the bare module: the same draws, and running statistics stay."""
        run = self._run
        after = RandomState.now(run.device)
        seen.random.restore()
        cached = parametrize.cached if run.reparameterised else nullcontext
        try:
            with frozen_statistics(run.model), cached(), run.passing.during(True), run.taps.recording() as run.features:
                return run.output(run.model, seen.inputs)
        finally:
            after.restore()

    @torch.no_grad()
    def _tangents(self, seen: Pass, leaves: list[Tensor], along: list[Tensor]) -> list[Tensor]:
        """dz/dw u for output and features."""
        run = self._run
        wide, kept = replace(seen, inputs=map_tensors(widened, seen.inputs)), run.features
        share = max(torch.finfo(leaf.dtype).eps for leaf in leaves) ** 0.4  # between curvature and rounding
        step = share * _length(leaves) / _length(along).clamp_min(1e-30)
        values = []
        try:
            with run.precision.without():
                for signed in (step, -step):
                    with _moved(leaves, torch._foreach_mul(along, signed)):
                        found: list[Tensor] = []
                        _cut(self._again(wide), found)
                        for one in run.features.values():
                            _cut_feature(one, found)
                    values.append(found)
        finally:
            run.features = kept
        return [(up - down) / (2.0 * step) for up, down in zip(*values, strict=True)]


@contextmanager
def _moved(leaves: list[Tensor], offsets: tuple[Tensor, ...]) -> Iterator[None]:
    """Inside, leaves hold other values; graphs that saved them do not notice, because none is written in place."""
    kept = [leaf.data for leaf in leaves]
    try:
        for leaf, value in zip(leaves, torch._foreach_add(kept, offsets), strict=True):
            leaf.data = value
        yield
    finally:
        for leaf, value in zip(leaves, kept, strict=True):
            leaf.data = value


def _cut(value: Tensor, found: list[Tensor]) -> Tensor:
    """The same values with a graph that begins here, added to those found."""
    if not value.is_floating_point():
        return value
    leaf = value.detach().requires_grad_()
    vars(leaf).update(vars(value))  # what a method's hook wrote on it belongs to it still
    found.append(leaf)
    return leaf


def _cut_feature(feature: Feature, found: list[Tensor]) -> Feature:
    return Feature(
        map_tensors(lambda one: _cut(one, found), feature.input),
        map_tensors(lambda one: _cut(one, found), feature.output),
    )


def _length(tensors: list[Tensor]) -> Tensor:
    norms = [one.float() for one in torch._foreach_norm(tensors)]
    return torch.stack(norms).square().sum().sqrt()


def _wants_gradient(inputs: Any) -> bool:
    found = False

    def look(one: Tensor) -> Tensor:
        nonlocal found
        found = found or one.requires_grad
        return one

    map_tensors(look, inputs)
    return found


def _mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over processes, sent at once."""
    flat = torch.cat([one.flatten() for one in tensors])
    torch.distributed.all_reduce(flat)
    parts = (flat / torch.distributed.get_world_size()).split([one.numel() for one in tensors])
    return [part.reshape(one.shape).to(one) for part, one in zip(parts, tensors, strict=True)]
