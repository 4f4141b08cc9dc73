"""`tikhon list`: its options and its help."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer


def list_methods(
    family: Annotated[str | None, typer.Option(help="Only this family, as in targets.", show_default="all")] = None,
    problem: Annotated[
        str | None, typer.Option(help="Only methods for this problem, as in noisy-labels.", show_default="all")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array instead of the table.")] = False,
) -> None:
    """List the methods by family, the problems they address, and the evidence.

    Which methods help where some labels are wrong?

      tikhon list --problem noisy-labels
    """
    listing = importlib.import_module("tikhon.cli.listing")  # not at the top: importing torch takes a second
    listing.run(family, problem, as_json=json)
