"""What `tikhon list` does: choose, and draw the table."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tikhon.core.card import PROBLEMS
from tikhon.core.catalogue import catalogue
from tikhon.core.errors import TikhonError, near_misses
from tikhon.report.catalogue import describe
from tikhon.report.evidence import STYLES

LEGEND = """
Evidence: whether the paper's claim replayed in a small study here, in part, or not;
stale: the code has changed since; none: there is no study yet.
tikhon show NAME says more of one."""


def run(family: str | None, problem: str | None, *, as_json: bool) -> None:
    """Print the methods of a family, or for a problem, or all."""
    listings = sorted(catalogue().values(), key=lambda listing: (listing.family, listing.name))
    families = sorted({listing.family for listing in listings})
    if family is not None and family not in families:
        raise TikhonError(
            f"There is no family {family!r}. {near_misses(family, families)} Families: {', '.join(families)}."
        )
    if problem is not None and problem not in PROBLEMS:
        known = "\n".join(f"  {name:<14} {seen}" for name, seen in PROBLEMS.items())
        raise TikhonError(f"There is no problem {problem!r}. {near_misses(problem, PROBLEMS)} Problems:\n{known}")
    rows = [describe(listing) for listing in listings if family in (None, listing.family)]
    rows = [row for row in rows if problem is None or problem in row["problems"]]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    elif not rows:
        typer.echo(f"No method of {family or 'any family'} addresses {problem} yet.")
    else:
        Console().print(_table(rows), LEGEND, highlight=False)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)  # one space is enough
    table.add_column("name", no_wrap=True)
    table.add_column("class", no_wrap=True)
    table.add_column("year", no_wrap=True)
    table.add_column("problems")
    table.add_column("evidence", no_wrap=True)
    for place, row in enumerate(rows):
        if place == 0 or rows[place - 1]["family"] != row["family"]:
            if place:
                table.add_row()
            table.add_row(Text(row["family"], style="bold"))
        status = row["evidence"]["status"]
        table.add_row(
            Text(f"  {row['key']}"),
            Text(row["name"]),
            str(row["year"]),
            Text(" ".join(row["problems"])),
            Text(status, style=STYLES[status]),
        )
    return table
