"""`tikhon explain`: its options and its help."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer


def explain(
    recipe: Annotated[str, typer.Argument(help="Methods joined by +, with arguments.", show_default=False)],
) -> None:
    """Explain a recipe: the moments of a training step, who acts in each, in order.

    tikhon explain "elr+mixup(alpha=0.4)"
    """
    explaining = importlib.import_module("tikhon.cli.explaining")  # not at the top: importing torch takes a second
    explaining.run(recipe)
