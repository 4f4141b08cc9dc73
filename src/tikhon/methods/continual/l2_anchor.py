"""L2 anchor: keep the weights near those of earlier tasks, all alike or as far as each mattered (EWC)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tikhon.core.batches import map_tensors
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, Where, effective_weights
from tikhon.core.passes import evaluating
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.norms import half_squared_norm

GRADIENTS_AT_ONCE = 2**26
"""How many numbers the gradients of single samples may take at a time: 256 MB in float32."""

Weights = Mapping[str, Tensor]


def anchor_penalty(weights: Sequence[Tensor], anchors: Sequence[Tensor], importance: Sequence[Tensor] = ()) -> Tensor:
    """(1/2) sum_i F_i (theta_i - theta*_i)^2 over all tensors; a scalar.

    weights, anchors: tensors of equal shapes; importance: F >= 0, of the same shapes, or none for F = 1.
    Source: Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3.

    >>> anchor_penalty([torch.tensor([1.0, 2.0])], [torch.tensor([0.0, 0.0])], [torch.tensor([4.0, 0.0])])
    tensor(2.)
    """
    distances = torch._foreach_sub(list(weights), list(anchors))
    if not importance:
        return half_squared_norm(distances)
    products = torch._foreach_mul(torch._foreach_mul(distances, distances), list(importance))
    return 0.5 * torch.stack([product.sum() for product in products]).sum()


def squared_gradients(
    loss: Callable[[dict[str, Tensor], Any, Tensor], Tensor], weights: Weights, inputs: Any, values: Tensor
) -> dict[str, Tensor]:
    """sum_n (d loss(weights, x_n, y_n) / d weights)^2, for every weight: N times the diagonal of the empirical Fisher.

    loss: of one sample, a scalar; inputs: a tensor (N, ...) or a nest of these; values: (N, ...). The gradients of a
    few samples at a time are held in memory.
    """
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    rows = max(1, GRADIENTS_AT_ONCE // max(1, sum(weight.numel() for weight in weights.values())))
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for start in range(0, len(values), rows):
        some = gradients(dict(weights), _rows(inputs, start, start + rows), values[start : start + rows])
        for name, gradient in some.items():
            total[name] += gradient.square().sum(0)
    return total


def _rows(inputs: Any, start: int, stop: int) -> Any:
    return map_tensors(lambda tensor: tensor[start:stop], inputs)


class L2Anchor(Method):
    """Pull weights towards where they were when the last task ended.

    Use it where a network learns tasks in sequence, or is fine-tuned, and must not forget, and no old data may be kept.
    Say `recipe.end_task()` when a task is learned (or right after loading pretrained weights); before the first such
    call training is plain. Its rival is replay of old data, which remembers better where it is allowed.

        loss = task + strength * (1/2) sum_i F_i (theta_i - theta*_i)^2

    theta* are the weights at the last `end_task`. fisher=False: F = 1. fisher=True is elastic weight consolidation:
    F is the diagonal of the empirical Fisher information, the mean squared gradient of the loss of single samples of
    the task with their observed labels, model in eval mode; give the data: `recipe.end_task(loader)`. Over several
    tasks there is one anchor, at the last weights, and F is summed over the tasks (online EWC, Schwarz et al. 2018,
    arXiv 1805.06370, without decay), so memory does not grow. Under several processes give every one the same data.

    strength: at least 0; Fisher values are small, so there 1e2 to 1e5 is usual; where: which parameters: the weights by
    default; leave out heads that belong to one task, and in transformers the paper anchors the attention blocks alone.

    Cost: one or two copies of the selected parameters and one pass over them a step; the Fisher costs about an epoch's
    gradients at the end of a task.
    Reference: Smith, Tian, Halbe, Hsu, Kira 2022, arXiv 2203.17269; EWC is Kirkpatrick et al. 2017, arXiv 1612.00796.

    >>> recipe = tikhon.Recipe(tikhon.L2Anchor(strength=1.0))
    """

    card = Card(
        title="A Closer Look at Rehearsal-Free Continual Learning",
        authors="Smith, Tian, Halbe, Hsu, Kira",
        year=2022,
        arxiv="2203.17269",
        problems=("forgetting", "overfitting", "privacy"),
        formula=r"L = \mathrm{task} + \tfrac{\lambda}{2}\sum_i F_i(\theta_i-\theta_i^*)^2",
        claim="With pretraining, plain L2 outperforms EWC and feature distillation without rehearsal.",
        helps="Sequences of related tasks, fine-tuning of a pretrained network, where old data may not be kept.",
        hurts="Unrelated tasks; long sequences, in which the network stiffens.",
        cost="One or two copies of the selected parameters, one pass over them a step.",
    )

    def __init__(self, strength: Strength = 1.0, where: Where = "weights", fisher: bool = False) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.where = where
        self.fisher = fisher
        self.anchor = Snapshot()
        self.importance = Snapshot()
        if fisher:
            self.needs = frozenset({"plain weights"})  # gradients are taken with respect to the parameters themselves

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        if not self.anchor.tensors:
            return {}
        chosen = [*{one.name: one for one in step.select(self.where)}.values()]  # weight norm has two leaves a weight
        importance = self.importance.matching(chosen) if self.fisher else []
        distance = anchor_penalty([one.weight for one in chosen], self.anchor.matching(chosen), importance)
        return {"distance": Term(distance, self.strength, per_sample=False)}

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        weights = effective_weights(step.select(self.where))
        if self.fisher:
            if batches is None:
                raise TikhonError(f"{self.key} estimates the Fisher from data: recipe.end_task(loader).")
            fisher = self._fisher(weights, batches, step)
            before = self.importance.tensors
            self.importance.take({name: f + before[name] if name in before else f for name, f in fisher.items()})
        self.anchor.take(weights)

    def _fisher(self, weights: Weights, batches: Iterable[tuple[Any, Tensor]], step: Step) -> Weights:
        """The diagonal of the empirical Fisher at the model's weights."""
        model = step.model
        leaves = {one.name: one.leaf for one in step.select(self.where) if one.leaf_name == one.attribute}
        if leaves.keys() != weights.keys():
            parametrised = min(weights.keys() - leaves.keys())
            raise TikhonError(f"{self.key} with fisher=True needs plain weights; {parametrised} is parametrised.")

        def loss(weights: dict[str, Tensor], inputs: Any, value: Tensor) -> Tensor:
            def called(*args: Any, **kwargs: Any) -> Any:
                return functional_call(model, weights, args, kwargs)

            output = step.output(called, map_tensors(lambda tensor: tensor.unsqueeze(0), inputs))
            return weighted_losses(step.loss, output, Target.of(value.unsqueeze(0)))[0].sum()

        total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        samples = 0
        with evaluating(model):
            for inputs, values in batches:
                step.loss.refuse(step.output(model, inputs), values)
                sums = squared_gradients(loss, {name: leaf.detach() for name, leaf in leaves.items()}, inputs, values)
                torch._foreach_add_([*total.values()], [*sums.values()])
                samples += len(values)
        if not samples:
            raise TikhonError(f"{self.key}: recipe.end_task was given no samples; is the loader empty or used up?")
        fisher = {name: sums / samples for name, sums in total.items()}
        for name, values in fisher.items():
            if not bool(values.isfinite().all()):
                raise TikhonError(f"{self.key}: the Fisher of {name} is not finite: look for NaN in the task's data.")
        return fisher
