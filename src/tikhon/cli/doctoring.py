"""What `tikhon doctor` does: examine the user's model and data, and lay out what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator

import typer
from rich.padding import Padding
from rich.text import Text

from tikhon.cli.progress import console
from tikhon.core.errors import TikhonError
from tikhon.data.names import call_user
from tikhon.report.checkup import Checkup, Examined, examine
from tikhon.report.patient import Patient

USE = """To use a recipe, in your own training loop:

import torch
import tikhon as tk

model = recipe.prepare(model, samples=len(train))
recipe.attach(optimizer, epochs=epochs)
loss = recipe.loss(inputs, labels, index=places_in_train)"""


def run(spec: str, *, as_json: bool) -> None:
    """Print what is found of the user's patient."""
    patient = call_user(spec, what="patient")
    if not isinstance(patient, Patient):
        raise TikhonError(
            f"patient function {spec!r} returned {type(patient).__name__}; expected a tikhon.report.patient.Patient"
        )
    found = examine(patient)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1, allow_nan=False))
        return
    screen = console()
    for indent, text in _lines(found):
        screen.print(Padding(text, (0, 0, 0, indent), expand=False) if text else "", highlight=False)
    if any(one.remedies for one in found.findings):
        screen.print(f"\n{USE}", highlight=False, markup=False, soft_wrap=True)  # to be pasted: no line is broken


def _lines(found: Checkup) -> Iterator[tuple[int, Text]]:
    """Each with its indent."""
    for number, one in enumerate(found.findings, start=1):
        yield from _finding(number, one)
    if not found.findings:
        yield 0, Text("Nothing to mend: no number is surely beyond its limit.", style="bold")
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


def _finding(number: int, one: Examined) -> Iterator[tuple[int, Text]]:
    yield 0, Text.assemble((f"{number}. {one.name}", "bold"), f", weight {one.weight:.1f}")
    yield 3, Text(one.said())
    yield 3, Text(one.check.why)
    if one.reading.samples:
        first = ", ".join(str(place) for place in one.reading.samples[:10])
        more = f" and {len(one.reading.samples) - 10} more (--json has all)" if len(one.reading.samples) > 10 else ""
        yield 3, Text(f"Samples: {first}{more}")
    for remedy in one.remedies:
        yield 3, Text(f"recipe = {remedy.recipe}", style="green")
        yield 5, Text(f"{remedy.method}: {remedy.evidence}", style="dim")
    if one.check.problem and not one.remedies:
        yield 3, Text("No method with stored evidence against it can train this model as it is.")
    yield 0, Text()
