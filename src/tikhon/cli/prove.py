"""`tikhon prove`: its options and its help."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer


def prove(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Methods, as in: elr mixup.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every method whose evidence is missing or stale.")] = False,
    again: Annotated[bool, typer.Option("--again", help="With --all: also where the evidence is current.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Fewer seeds than the study asks for: a quick look, stored only with --out.",
            show_default="as the study asks",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time, of one thread each.")] = 2,
    engine: Annotated[
        str,
        typer.Option(
            help="local: processes of this machine. ray: tasks of a Ray cluster, with the same numbers "
            "(pip install 'tikhon\\[ray]')."
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="With --engine ray: the cluster, auto or HOST:PORT.",
            show_default="RAY_ADDRESS, else a Ray of this machine alone",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where evidence is stored.", show_default="the project's folder, elsewhere ./evidence"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; exit with 1 if any evidence is stale or missing.")
    ] = False,
) -> None:
    """Run the studies behind the claims, here, and store what they found.

    tikhon prove elr

    tikhon prove --all --check

    tikhon prove --all --engine ray --address auto --jobs 64
    """
    proving = importlib.import_module("tikhon.cli.proving")  # not at the top: importing torch takes a second
    if check:
        proving.check(names or [], out)
    else:
        proving.run(
            names or [], every=every, again=again, seeds=seeds, jobs=jobs, engine=engine, address=address, out=out
        )
