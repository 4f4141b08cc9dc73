"""Set-up that is refused: models, selections, optimizers and lengths that a recipe cannot work with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from tikhon.core.errors import TikhonError
from tikhon.core.method import learned, scalars
from tikhon.core.parameters import Selected, every_parameter, select
from tikhon.core.passes import unwrapped
from tikhon.core.plan import Entry, Plan
from tikhon.core.shards import holds_shards
from tikhon.core.strength import Schedule


def refuse_model(plan: Plan, model: nn.Module, samples: int | None) -> None:
    """Everything that `prepare` can know to be wrong, before anything is changed."""
    if unwrapped(model) is not model:
        raise TikhonError(
            f"prepare needs the plain model, not {type(model).__name__}: first recipe.prepare(model), then compile "
            "or wrap, then make the optimizer."
        )
    wanting = needing_ids(plan)
    if wanting and samples is None:
        raise TikhonError(f"{', '.join(wanting)} remembers every sample: prepare(model, samples=len(train)).")
    if samples is not None and samples < 1:
        raise TikhonError(f"samples must be the number of training samples, not {samples}: is the data set empty?")
    if not any(True for _ in model.parameters()):
        raise TikhonError(f"{type(model).__name__} has no parameters to train.")
    for entry in plan.entries:
        _refuse_empty_selection(entry, model)
        entry.method.check(model)


def needing_ids(plan: Plan) -> list[str]:
    """The methods that must know which samples a batch holds."""
    return [entry.key for entry in plan.entries if "ids" in entry.method.needs]


def refuse_optimizers(optimizers: Sequence[Optimizer], model: nn.Module, added: Sequence[Selected]) -> None:
    """Optimizers that own nothing of the model, or were made before `prepare` added parameters to it."""
    owned = {id(one) for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]}
    if not any(id(one.leaf) in owned for one in every_parameter(model)):
        raise TikhonError("The optimizer owns no parameter of the prepared model: make it from model.parameters().")
    for one in added:
        if one.leaf.requires_grad and id(one.leaf) not in owned:
            raise TikhonError(
                f"The optimizer misses {one.name}, which prepare added: make the optimizer after recipe.prepare."
            )


def refuse_unknown_length(plan: Plan, steps: int | None, epochs: int | None) -> None:
    """Schedules that cannot be followed because nobody said how long training is."""
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value is not None and value < 1:
            raise TikhonError(f"{name} must be positive, not {value}.")
    for entry in plan.entries:
        for name, schedule in scalars(entry.method).items():
            if not isinstance(schedule, Schedule) or schedule.by == "step":
                continue
            if epochs is None and (schedule.by == "epoch" or steps is None):
                needed = "epochs=" if schedule.by == "epoch" else "steps= or epochs="
                raise TikhonError(
                    f"{entry.key}'s {name} follows {schedule.by}: tell attach how long training is, {needed}."
                )
        if steps is None and epochs is None and (entry.window is not None or "length" in entry.method.needs):
            what = "acts During a part of" if entry.window is not None else "goes by the progress of"
            raise TikhonError(f"{entry.key} {what} training: tell attach how long it is, steps=.")


def refuse_shards(plan: Plan, model: nn.Module) -> None:
    """Methods that cannot work where processes hold parts of the parameters (FSDP2)."""
    if not holds_shards(model):
        return
    for entry in plan.entries:
        if learned(entry.method):
            raise TikhonError(
                f"{entry.key} has a Learned strength, which takes passes at other weights, and sharded parameters "
                "(FSDP2) are not moved for these. Train with DistributedDataParallel, or give a number or a schedule."
            )
        why = entry.method.exempt.get("shards")
        if why is not None:
            raise TikhonError(
                f"{entry.key} does not work on sharded parameters (FSDP2): {why}. Train with DistributedDataParallel, "
                "or leave it out."
            )


def _refuse_empty_selection(entry: Entry, model: nn.Module) -> None:
    """A selection that matches nothing is refused before surgery, not in the middle of the first step."""
    where = getattr(entry.method, "where", None)
    if where is not None:
        try:
            select(model, where)
        except TikhonError as error:
            raise TikhonError(f"{entry.key}: {error}") from None
