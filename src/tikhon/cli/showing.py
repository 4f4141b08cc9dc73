"""What `tikhon show` does: lay out all that is known of one method."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tikhon.core.card import PROBLEMS
from tikhon.core.catalogue import Listing, find
from tikhon.report.catalogue import details
from tikhon.report.evidence import evidence_view
from tikhon.studies.evidence import load_evidence
from tikhon.studies.study import study_path


def run(name: str, *, as_json: bool) -> None:
    """Print one method."""
    listing = find(name)
    known = details(listing)
    if as_json:
        typer.echo(json.dumps(known, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for part in _parts(listing, known):
        console.print(part, crop=False)  # an example with a line cut off at the terminal's width does not run


def _parts(listing: Listing, known: dict[str, Any]) -> list[RenderableType]:
    source = f"{known['authors'] + ', ' if known['authors'] else ''}{known['year']}"
    if known["arxiv"]:
        source += f", arXiv {known['arxiv']}"
    parts: list[RenderableType] = [
        Text.assemble((known["name"], "bold"), f"  {known['key']}, {known['kind']}, family {known['family']}"),
        Text(known["title"]),
        Text(source, style="dim"),
    ]
    parts += _section("addresses", _pairs({name: PROBLEMS[name] for name in known["problems"]}))
    parts += _section("formula", Text(known["formula"]))
    said = {"claim": "claim", "helps": "helps with", "hurts": "hurts with", "cost": "cost"}
    parts += _section("what is said of it", _pairs({title: known[key] for key, title in said.items() if known[key]}))
    if known["arguments"]:
        parts += _section("arguments", _arguments(known["arguments"]))
    acts = {one["moment"] + (f" ({one['slot']})" if one["slot"] else ""): one["about"] for one in known["moments"]}
    if acts:
        parts += _section("acts in", _pairs(acts))
    limits = {word: ", ".join(known[word]) for word in ("needs", "breaks") if known[word]}
    limits |= {f"exempt from {law}": reason for law, reason in known["exempt"].items()}
    if known["moments"] and not known["neutral"]:
        limits["no neutral setting"] = "no arguments make it plain training"
    if limits:
        parts += _section("limits", _pairs(limits))
    # In a group of its own: `print` joins texts, and what comes out of that is wrapped.
    parts += [Text("\nexample\n", style="bold"), Group(Text(known["example"], no_wrap=True, overflow="ignore"))]
    evidence = load_evidence(listing)
    parts += _section("evidence", evidence_view(evidence) if evidence is not None else _unproved(listing))
    return parts


def _unproved(listing: Listing) -> Text:
    if study_path(listing.family, listing.name).exists():
        return Text(f"Not yet proved: tikhon prove {listing.name}")
    return Text("Not yet proved, and there is no study of it yet.")


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return [Text(f"\n{title}", style="bold"), Padding(body, (0, 0, 0, 2), expand=False)]


def _pairs(pairs: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for left, right in pairs.items():
        table.add_row(Text(left, no_wrap=True), Text(right))
    return table


def _arguments(arguments: list[dict[str, str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("name", "default", "type"):
        table.add_column(title, overflow="fold")
    table.add_column("meaning")
    for one in arguments:
        table.add_row(*(Text(cell) for cell in (one["name"], one["default"] or "required", one["type"], one["about"])))
    return table
