"""What `tikhon search` does: search, and lay out what was found."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tikhon.report.search import Found, search

LEGEND = "\ntikhon show NAME says more of one."


def run(question: str, limit: int, *, as_json: bool) -> None:
    """Print the entries for a question, best first."""
    found = search(question, limit)
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in found], indent=1, ensure_ascii=False))
    elif not found:
        typer.echo("Nothing in the catalogue is like that. Try other words, or see all of it: tikhon list")
    else:
        console = Console(highlight=False)
        for one in found:
            console.print(Text.assemble((one.key, "bold"), f"  {one.name}, {one.year}, {' '.join(one.problems)}"))
            console.print(Padding(Text(one.title), (0, 0, 0, 2), expand=False))
            console.print(Padding(Text(_why(one), style="dim"), (0, 0, 0, 2), expand=False))
        console.print(LEGEND)


def _why(found: Found) -> str:
    """Because of which words, and of what they mean."""
    reasons = [f'"{words}" means {meaning}' for words, meaning in found.meant]
    if found.words:
        reasons.append(f"both say {', '.join(found.words)}")
    return "; ".join(reasons) or "its text is like the question as a whole"
