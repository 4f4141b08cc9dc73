"""Export: the trained model as plain torch, its outputs compared before and after."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tikhon.core.batches import first_tensor, map_tensors
from tikhon.core.errors import TikhonError
from tikhon.core.parameters import copy_into, every_parameter
from tikhon.core.passes import evaluating
from tikhon.core.plan import Plan
from tikhon.core.run import Run
from tikhon.core.shards import unshard, whole

EXAMPLE_ROWS = 8


def example_of(inputs: Any) -> Any:
    """A few rows of a batch, to compare outputs with."""
    rows = len(first_tensor(inputs))

    def few(values: Tensor) -> Tensor:
        return values[:EXAMPLE_ROWS].detach().clone() if values.ndim and len(values) == rows else values

    return map_tensors(few, inputs)


def export(run: Run, plan: Plan, example: Any, deployed: Callable[[], AbstractContextManager[nn.Module]]) -> nn.Module:
    """Average, merge or fold, project, prune; then take off the taps and compare outputs."""
    model = run.model
    expected = None
    with deployed(), evaluating(model):
        if example is not None:
            expected = run.output(model, example)
        averaged = [one.leaf.detach().clone() for one in every_parameter(model)]
    if run.sharded:
        averaged = [whole(one) for one in averaged]
        unshard(model)
    _uncompile(model)
    copy_into([one.leaf for one in every_parameter(model)], averaged)
    for entry in plan.of("export"):
        model = entry.method.export(model)
    run.taps.remove()
    refuse_traces(model)
    if expected is not None:
        with evaluating(model):
            refuse_different(run.output(model, example), expected)
    return model


def _uncompile(model: nn.Module) -> None:
    """What was compiled is of the model before merging and pruning, and has names that no plain model has."""
    for module in list(model.modules()):
        vars(module).pop("_compiled_call_impl", None)
        for name, child in list(module._modules.items()):
            module._modules[name] = getattr(child, "_orig_mod", child)


def refuse_different(found: Tensor, expected: Tensor) -> None:
    tolerance = 1e-9 if expected.dtype == torch.float64 else 1e-4 if expected.dtype == torch.float32 else 5e-2
    scale = float(expected.abs().max().clamp_min(1.0))
    difference = float((found - expected).abs().max())
    if not difference <= tolerance * scale:
        raise TikhonError(
            f"The exported model's outputs differ from the trained one's by {difference:.3g}; expected at most "
            f"{tolerance * scale:.3g}. The model was changed after training, or a method's export is wrong: report it."
        )


def refuse_traces(model: nn.Module) -> None:
    """A finished model has nothing of tikhon in it but what its owner built it of: blocks, and models of studies."""
    for name, module in model.named_modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        ours = [hook for hook in hooks if getattr(hook, "__module__", "").startswith("tikhon.")]
        kind = type(module).__module__
        left = kind.startswith("tikhon.") and not kind.startswith(("tikhon.blocks.", "tikhon.studies."))
        if left or ours:
            raise TikhonError(f"A method left something in {name or 'the model'}: its export is wrong, report it.")


def merge_parametrization(model: nn.Module, kind: type[nn.Module]) -> None:
    """Write the effective weight, that of evaluation, into every weight that a parametrization of this kind makes."""
    for module in list(model.modules()):
        for name, chain in list(getattr(module, "parametrizations", {}).items()):
            if any(isinstance(one, kind) for one in chain):
                chain.eval()
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
