"""An examination as text: for the terminal, and as what `print` shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from tikhon.report.examined import Checkup, Examined

FIRST = 10
"""Samples that are named."""

NOTHING = "Nothing to mend: no number is surely beyond its limit."
NO_METHOD = "No method with stored evidence against it is known to train this model as it is."

HOW = "To use a recipe, in your own training loop:"
USE = """import torch
import tikhon as tk

model = recipe.prepare(model, samples=len(train))
recipe.attach(optimizer, epochs=epochs)
loss = recipe.loss(inputs, labels, index=places_in_train)"""


def text(found: Checkup) -> str:
    """All of it, without colours; no line is broken."""
    shown = "\n".join(" " * indent + line.plain if line else "" for indent, line in lines(found))
    return f"{shown}\n\n{HOW}\n\n{USE}" if has_recipes(found) else shown


def has_recipes(found: Checkup) -> bool:
    return any(one.remedies for one in found.findings)


def lines(found: Checkup) -> Iterator[tuple[int, Text]]:
    """Each with its indent."""
    for number, one in enumerate(found.findings, start=1):
        yield from _finding(number, one)
    if not found.findings:
        yield 0, Text(NOTHING, style="bold")
        yield 0, Text()
    if found.sound:
        yield 0, Text("Within limits:")
    for one in found.sound:
        yield 2, Text(f"{one.name}: {one.said()}")
    if found.not_made:
        yield 0, Text()
        yield 0, Text("Not made:")
    for name, reason in found.not_made.items():
        yield 2, Text(f"{name}: {reason}")


def samples(one: Examined) -> str:
    """The first of the samples that a finding speaks of; "" where it speaks of none."""
    if not one.reading.samples:
        return ""
    first = ", ".join(str(place) for place in one.reading.samples[:FIRST])
    left = len(one.reading.samples) - FIRST
    return f"Samples: {first}" + (f" and {left} more (--json and as_dict() have all)" if left > 0 else "")


def _finding(number: int, one: Examined) -> Iterator[tuple[int, Text]]:
    yield 0, Text.assemble((f"{number}. {one.name}", "bold"), f", weight {one.weight:.1f}")
    yield 3, Text(one.said())
    yield 3, Text(one.check.why)
    if one.reading.samples:
        yield 3, Text(samples(one))
    for remedy in one.remedies:
        yield 3, Text(f"recipe = {remedy.recipe}", style="green")
        yield 5, Text(f"{remedy.method}: {remedy.evidence}", style="dim")
    if one.check.problem and not one.remedies:
        yield 3, Text(NO_METHOD)
    yield 0, Text()
