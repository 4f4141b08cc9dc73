"""Method: one way of regularising. A subclass overrides the moments that it needs and no others."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.losses import Loss
from tikhon.core.parameters import Selected
from tikhon.core.step import Inner, Step
from tikhon.core.strength import Learned
from tikhon.core.target import Target
from tikhon.core.terms import Terms

Need = Literal[
    "ids", "classes", "values", "blocks", "dropout", "plain weights", "zero-keeping weights", "lasting layers", "length"
]
"""What a method may need: sample ids; class scores and labels; a loss on values; a model with blocks of tikhon; one
with dropout; weights that are not re-parameterised; or, weaker, weights whose parametrization maps zero to zero; layers
that all stay, none of them a candidate for a place; how long training is."""

SLOTS: Mapping[str, tuple[str, ...]] = {
    "prepare": ("replace", "parametrize", "gate", "tap"),
    "batch": ("select", "augment", "mix"),
    "targets": ("distil", "smooth"),
    "gradients": ("project", "clip", "noise"),
    "after_step": ("map", "restore", "average"),
    "export": ("average", "merge", "project", "prune"),
}
"""Where inside a moment a method acts, in order. Methods in the same slot are ordered by their keys."""

MOMENTS = (
    "check",
    "prepare",
    "batch",
    "remember",
    "loss_function",
    "evaluate",
    "targets",
    "terms",
    "around",
    "parameter_terms",
    "gradients",
    "after_step",
    "epoch_end",
    "task_end",
    "averages",
    "export",
)

ONE_OWNER = {
    "around": "wraps the loss for a second pass",
    "loss_function": "provides the loss function",
    "evaluate": "owns the evaluation of the loss",
    "averages": "deploys weights other than the trained ones",
}
"""Moments that two methods of one recipe cannot both have, and what having it means."""

M = TypeVar("M", bound="Method")


class Method(nn.Module):
    """One way of regularising, in any training loop.

    State that must survive belongs in buffers, `PerSampleMemory`, `Queue`, `StepMean` or `Snapshot`: saving and moving
    it is torch's business. Moments before backward receive values and return values; `gradients` and `after_step` write
    in place into what they are handed. A method reads scalars through `step.value`, draws through `step.generator`, and
    knows neither optimizer, trainer, device nor another method.
    """

    card: ClassVar[Card]
    slots: Mapping[str, str] = {}
    """Moment -> slot, for the overridden moments that have slots."""
    needs: frozenset[Need] = frozenset()
    breaks: frozenset[Need] = frozenset()
    """Needs of others that this method makes impossible."""
    elementwise: bool = False
    """Whether its moments on parameters treat every number by itself. Then, where parameters are sharded, each process
    acts on its own parts; for all other methods they are made whole, which costs a whole model's memory."""
    exempt: Mapping[str, str] = {}
    """Law -> why this method cannot obey it, printed on its page."""

    _key: str | None = None

    @property
    def key(self) -> str:
        """Under which name the recipe keeps this method's state."""
        return self._key or catalogue_name(type(self))

    def named(self: M, name: str) -> M:
        """Give the method a key of its own, so that a recipe can hold two of a kind: `tk.L2(1e-4).named("head")`."""
        self._key = name
        return self

    # Once ------------------------------------------------------------------------------------------------------------

    def check(self, model: nn.Module) -> None:
        """Refuse a model that the method cannot work on, before anything is changed."""

    def prepare(self, model: nn.Module) -> None:
        """Surgery: parametrizations, gates, replaced modules. Before the optimizer is made."""

    def taps(self, model: nn.Module) -> Sequence[str]:
        """Names of the modules whose features this method reads with `step.tap`."""
        return ()

    # Every micro-batch ------------------------------------------------------------------------------------------------

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        """Change the batch before the forward pass. The caller's tensors stay untouched."""
        return inputs, target

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        """Write per-sample state; the only moment that may."""

    def loss_function(self, loss: Loss) -> Loss:
        """Provide the loss function in place of the caller's; asked for once, when the recipe is built."""
        return loss

    def evaluate(self, output: Tensor, target: Target, step: Step) -> tuple[Tensor, Target]:
        """Own the evaluation of the task: outputs (M * B, ...) and a target of as many rows, whose mean counts."""
        return output, target

    def targets(self, output: Tensor, target: Target, step: Step) -> Target:
        """What the output is asked to fit."""
        return target

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        """Named per-sample terms."""
        return {}

    def around(self, inner: Inner, step: Step) -> Tensor:
        """Wrap the loss, for second passes."""
        return inner()

    # Every optimizer step that really happens ------------------------------------------------------------------------

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        """Named penalties on parameters; scalars."""
        return {}

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        """Change gradients in place. `parameters`: those that `where` (all, if the method has none) selects and that
        have a gradient."""

    def after_step(self, model: nn.Module, step: Step) -> None:
        """Proximal maps, averages, restoration; in place."""

    def epoch_end(self, step: Step) -> None:
        """Masks, memories."""

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        """Keep what was learned: the caller ended a task of a sequence (`recipe.end_task`).

        batches: the task's data as pairs of inputs and target on the model's device; None where the caller gave none.
        """

    # At the end ------------------------------------------------------------------------------------------------------

    def averages(self) -> Mapping[str, Tensor]:
        """Weights by name that the finished model has instead of the trained ones."""
        return {}

    def export(self, model: nn.Module) -> nn.Module:
        """Undo the surgery: merge, fold, prune."""
        return model


def catalogue_name(kind: type[Method]) -> str:
    """The name of a method's file, which is its name everywhere; a class of your own goes by its class name."""
    if kind.__module__.startswith("tikhon.methods."):
        return kind.__module__.rpartition(".")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def overrides(method: Method, moment: str) -> bool:
    return getattr(type(method), moment) is not getattr(Method, moment)


def scalars(method: Method) -> dict[str, Any]:
    """A method's strengths by name, with those of the methods inside it as `key/name`."""
    return _held(method, strengths)


def learned(method: Method) -> dict[str, Learned]:
    """A method's learned strengths by name."""
    return {name: strength for name, strength in scalars(method).items() if isinstance(strength, Learned)}


def strengths(kind: type[Method]) -> tuple[str, ...]:
    """The names of a method's scalars: its constructor's arguments that are annotated `Strength`."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return tuple(one.name for one in parameters if "Strength" in str(one.annotation))


def never_learned(method: Method) -> list[str]:
    """Names of arguments that hold a `Learned` where nothing learns it: they are not annotated `Strength`."""
    return [name for name, value in _held(method, _others).items() if isinstance(value, Learned)]


def _others(kind: type[Method]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(kind.__init__).parameters if name not in strengths(kind))


def _held(method: Method, names: Callable[[type[Method]], Iterable[str]]) -> dict[str, Any]:
    """What a method has under these names of arguments, with the methods inside it as `key/name`."""
    found = {name: getattr(method, name, None) for name in names(type(method))}
    inside = (one for one in method.modules() if isinstance(one, Method) and one is not method)
    return found | {f"{one.key}/{name}": getattr(one, name, None) for one in inside for name in names(type(one))}
