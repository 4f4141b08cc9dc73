"""`tikhon show`: its options and its help."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer


def show(
    name: Annotated[str, typer.Argument(help="A method, by its name or its class: elr or ELR.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show a method: what it does and costs, an example to paste, the evidence.

    tikhon show elr
    """
    showing = importlib.import_module("tikhon.cli.showing")  # not at the top: importing torch takes a second
    showing.run(name, as_json=json)
