"""The Fisher information of a model's weights, estimated from batches as a recipe reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from tikhon.core.batches import map_tensors
from tikhon.core.errors import TikhonError
from tikhon.core.parameters import Selected
from tikhon.core.passes import evaluating
from tikhon.core.step import Step
from tikhon.math.fisher import squared_gradients


def fisher_diagonal(
    chosen: Sequence[Selected],
    batches: Iterable[tuple[Any, Tensor]],
    label: Callable[[Tensor, Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    step: Step,
    method: str,
) -> dict[str, Tensor]:
    """The mean squared gradient of single samples' loss, for every chosen parameter, by name; the model in eval mode.

    label: (output (B, ...), target (B, ...)) -> the values (B, ...) that the loss is taken against; loss: of one
    sample, (output (1, ...), value (1, ...)) -> a scalar; method: in whose name what does not fit is refused.
    """
    for one in chosen:
        if one.leaf_name != one.attribute:
            raise TikhonError(f"{method} estimates the Fisher of plain weights; {one.name} is parametrised.")
    model = step.model
    weights = {one.name: one.leaf.detach() for one in chosen}

    def loss_of(weights: dict[str, Tensor], inputs: Any, value: Tensor) -> Tensor:
        def called(*args: Any, **kwargs: Any) -> Any:
            return functional_call(model, weights, args, kwargs)

        output = step.output(called, map_tensors(lambda tensor: tensor.unsqueeze(0), inputs))
        return loss(output, value.unsqueeze(0))

    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    samples = 0
    with evaluating(model):
        for inputs, target in batches:
            values = label(step.output(model, inputs), target)
            sums = squared_gradients(loss_of, weights, inputs, values)
            torch._foreach_add_([*total.values()], [*sums.values()])
            samples += len(values)
    if not samples:
        raise TikhonError(f"{method}: recipe.end_task was given no samples; is the loader empty or used up?")
    fisher = {name: sums / samples for name, sums in total.items()}
    for name, found in fisher.items():
        if not bool(found.isfinite().all()):
            raise TikhonError(f"{method}: the Fisher of {name} is not finite: look for NaN in the data.")
    return fisher
