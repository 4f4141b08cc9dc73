"""Learned strengths as methods read them: a number where its derivative can be had, and a refusal everywhere else."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from torch.utils._pytree import tree_map

from tikhon.core.errors import TikhonError
from tikhon.core.strength import Learned

if TYPE_CHECKING:
    from tikhon.core.run import Run

IN_THE_LOSS = ("targets", "terms", "evaluate", "parameter_terms")
"""Moments in which the loss is a function of what is read."""


def watched(strength: Learned, run: Run) -> float:
    """What a learned strength is now.

    Only in the loss has it a derivative. Elsewhere a method may compare it, to see that it is not zero, and no more.
    """
    if strength not in run.clock.learned:
        raise TikhonError(
            "A Learned strength is learned where it is an argument of a method that is annotated as Strength; this "
            "one reached a method some other way. Give a number or a schedule there."
        )
    value, moment = run.clock.learned[strength], run.moment
    if run.passing.inside or moment not in IN_THE_LOSS:
        return cast(float, Watched(value, lambda: _refuse(run.names[strength], run.passing.inside, moment)))
    reads = run.reads
    return value if reads is None else cast(float, Watched(value, lambda: reads.add((strength, moment))))


def _refuse(name: str, inside: bool, moment: str) -> None:
    method, _, argument = name.rpartition("/")
    where = "inside the model" if inside else f"in `{moment}`"
    raise TikhonError(
        f"{method} reads {argument} {where}, where the loss has no derivative by it: {argument} cannot be Learned. "
        "Give a number or a schedule, or search for it over whole trainings: tikhon tune."
    )


class Watched:
    """A number that says when it is used; to be compared is no use. No float, or torch would use it unseen."""

    def __init__(self, value: float, used: Callable[[], object]) -> None:
        self._value, self._used = value, used

    def __float__(self) -> float:
        self._used()
        return self._value

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: Any = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        arguments, keywords = tree_map(_number, (arguments, keywords or {}))
        return function(*arguments, **keywords)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, Watched) else value


def _seen(value: Any) -> Any:
    return value._value if isinstance(value, Watched) else value


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _act = getattr(operator, _name)
    setattr(Watched, f"__{_name}__", lambda self, other, act=_act: act(float(self), _number(other)))
    setattr(Watched, f"__r{_name}__", lambda self, other, act=_act: act(other, float(self)))
for _name in ("neg", "pos", "abs", "trunc", "ceil", "floor", "round"):
    setattr(Watched, f"__{_name}__", lambda self, *rest, name=_name: getattr(float(self), f"__{name}__")(*rest))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _act = getattr(operator, _name)
    setattr(Watched, f"__{_name}__", lambda self, other, act=_act: act(self._value, _seen(other)))
