"""What `tikhon explain` does: build the recipe, or hear why it cannot be built, and draw its plan."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tikhon.core.recipe import Recipe
from tikhon.report.catalogue import about_moment
from tikhon.studies.arms import parse_arm


def run(recipe: str) -> None:
    """Print who acts in which moment of the training step."""
    arm = parse_arm(recipe)
    lines = [line.split(maxsplit=1) for line in Recipe(*arm.methods()).explain().splitlines()]
    console = Console(highlight=False)
    if arm.methods():
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("moment", no_wrap=True)
        table.add_column("who acts, in order")
        table.add_column("what happens there", style="dim")
        for moment, acting in lines:
            table.add_row(moment, Text(acting), Text(about_moment(moment)))
        console.print(table)
    else:
        console.print("No methods: plain training.")
    if arm.early_stopping:
        console.print("early_stopping keeps the weights of the epoch that was best on the validation split.")
