"""`tikhon survey`: its options and its help."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from tikhon.cli.options import RUNNING, Address


def survey(
    problem: Annotated[
        str | None,
        typer.Argument(
            help="overfitting, noisy-labels, forgetting, calibration or shift; all without.", show_default=False
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Only these, as in elr,mixup.", show_default="all that address the problem")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Rows at a time, of one thread each.", rich_help_panel=RUNNING)] = 2,
    engine: Annotated[
        str,
        typer.Option(
            help="local: processes of this machine. ray: tasks of a Ray cluster, with the same numbers.",
            rich_help_panel=RUNNING,
        ),
    ] = "local",
    address: Address = None,
    stored: Annotated[bool, typer.Option("--stored", help="Run nothing; show what is stored.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; exit with 1 if any stored row is stale.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Where rows are stored.", show_default="the project's folder, elsewhere ./evidence"),
    ] = None,
) -> None:
    """Compare all methods that address a problem: same tasks, same search, ten seeds.

    Every arm chooses among four candidates on seeds of their own, keeps the epoch that was best on validation data,
    and is held against plain training that did the same. Rows that are stored and current are not run again.

    tikhon survey noisy-labels --methods elr,mixup

    tikhon survey overfitting --stored
    """
    surveying = importlib.import_module("tikhon.cli.surveying")  # not at the top: importing torch takes a second
    if check:
        surveying.check(problem, out)
    else:
        surveying.run(problem, methods=methods, jobs=jobs, engine=engine, address=address, stored=stored, out=out)
