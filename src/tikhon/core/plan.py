"""The plan of a recipe: which method acts in which moment, in which order, and which sets are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tikhon.core.combine import During
from tikhon.core.errors import TikhonError
from tikhon.core.losses import Kind
from tikhon.core.method import MOMENTS, ONE_OWNER, SLOTS, Method, learned, never_learned, overrides
from tikhon.core.run import Run
from tikhon.core.step import Step
from tikhon.core.strength import Learned


@dataclass(frozen=True, eq=False)
class Entry:
    """A method in its place."""

    key: str
    method: Method
    step: Step
    window: During | None

    def active(self) -> bool:
        return self.window is None or self.window.includes(self.step.progress)


class Plan:
    """For each moment the methods that act in it, in order: by slot, then by key, never by how they were listed."""

    def __init__(self, methods: Iterable[Method | During], run: Run, kind: Kind) -> None:
        self.entries = tuple(sorted((_entry(method, run) for method in methods), key=lambda entry: entry.key))
        _refuse(self.entries, kind)
        self._of = {moment: self._ordered(moment) for moment in MOMENTS}

    def _ordered(self, moment: str) -> tuple[Entry, ...]:
        acting = [entry for entry in self.entries if overrides(entry.method, moment)]
        slots = SLOTS.get(moment)
        if slots is None:
            return tuple(acting)
        return tuple(sorted(acting, key=lambda entry: (slots.index(entry.method.slots[moment]), entry.key)))

    def of(self, moment: str) -> tuple[Entry, ...]:
        """The methods that act in this moment."""
        return self._of[moment]

    def acts(self, *moments: str) -> bool:
        return any(self._of[moment] for moment in moments)

    def learned(self) -> dict[Learned, str]:
        """The learned strengths, and METHOD/ARGUMENT where each was found first."""
        found: dict[Learned, str] = {}
        for entry in self.entries:
            for name, strength in learned(entry.method).items():
                found.setdefault(strength, f"{entry.key}/{name}")
        return found

    def explain(self) -> str:
        """The moments of a training step and who acts in each, in order."""
        lines = []
        for moment in MOMENTS:
            names = [
                f"{entry.key} ({entry.method.slots[moment]})" if moment in SLOTS else entry.key
                for entry in self._of[moment]
            ]
            if names and moment != "check":
                lines.append(f"{moment:<16} {' -> '.join(names)}")
        for entry in self.entries:
            if entry.window is not None:
                lines.append(f"{entry.key} acts while {entry.window.begin:g} <= progress < {entry.window.end:g}")
        for strength, name in self.learned().items():
            lines.append(f"{name} is learned between {strength.low:g} and {strength.high:g}")
        return "\n".join(lines) if lines else "no methods: plain training"


def _entry(method: Method | During, run: Run) -> Entry:
    window = method if isinstance(method, During) else None
    bare = method.method if isinstance(method, During) else method
    if isinstance(bare, type) and issubclass(bare, Method):
        raise TikhonError(f"A recipe takes methods, not classes: write tk.{bare.__name__}(...).")
    if not isinstance(bare, Method):
        raise TikhonError(f"A recipe takes methods such as tk.MixUp(); {bare!r} is not one.")
    for moment, slots in SLOTS.items():
        if overrides(bare, moment) and bare.slots.get(moment) not in slots:
            raise TikhonError(
                f"{type(bare).__name__} acts in `{moment}` and must say where: "
                f"slots = {{{moment!r}: one of {', '.join(slots)}}}."
            )
    return Entry(bare.key, bare, Step(run, bare.key), window)


def _refuse(entries: tuple[Entry, ...], kind: Kind) -> None:
    """Raise a `TikhonError` for a set of methods that cannot run together or not with this loss."""
    for one, other in pairwise(entries):
        if one.method is other.method:
            raise TikhonError(f"{one.key} is listed twice: the same object. Make a second one.")
        if one.key == other.key:
            raise TikhonError(
                f"Two methods have the key {one.key!r}. Name one of them, "
                f"for example tk.{type(other.method).__name__}(...).named('second')."
            )
    for moment, meaning in ONE_OWNER.items():
        owners = [entry.key for entry in entries if overrides(entry.method, moment)]
        if len(owners) > 1:
            raise TikhonError(
                f"{owners[0]} and {owners[1]} cannot run together: each {meaning}, and there can be only one. "
                "Leave one of them out."
            )
    for entry in entries:
        for name in never_learned(entry.method):
            raise TikhonError(
                f"{entry.key}'s {name} is no strength and cannot be Learned. Give a value there, or search for it over "
                "whole trainings: tikhon tune."
            )
        if "classes" in entry.method.needs and kind != "classes":
            raise TikhonError(
                f"{entry.key} needs class scores and labels, but the base loss is on {kind}. "
                "Leave it out, or give the recipe a classification loss."
            )
        if "values" in entry.method.needs and kind != "values":
            raise TikhonError(
                f"{entry.key} needs a loss on values, but the base loss is on {kind}. "
                "Leave it out, or give the recipe one: tk.Recipe(..., base=torch.nn.functional.mse_loss)."
            )
        for other in entries:
            broken = entry.method.needs & other.method.breaks
            if broken and entry is not other:
                raise TikhonError(
                    f"{entry.key} and {other.key} cannot run together: {entry.key} needs {min(broken)}, which "
                    f"{other.key} takes away. Leave one of them out, or use {other.key} in a run of its own."
                )
