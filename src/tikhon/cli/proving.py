"""What `tikhon prove` does: run studies, say what they found, and store it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from tikhon.cli.engines import chosen_engine
from tikhon.cli.progress import progress, say
from tikhon.core.catalogue import Listing, catalogue, find
from tikhon.core.errors import TikhonError
from tikhon.report.evidence import evidence_view
from tikhon.studies.cells import Event, RunCells
from tikhon.studies.evidence import Evidence, bundled, home, prove, status_of, store_evidence
from tikhon.studies.study import Study, find_study, study_path

WANTING = {"stale": "stale: the method or its study has changed since", "none": "missing"}


def run(
    names: Sequence[str],
    *,
    every: bool,
    again: bool,
    seeds: int | None,
    jobs: int,
    engine: str,
    address: str | None,
    out: Path | None,
) -> None:
    """Run the studies of the methods named, or of all whose evidence is missing or stale (`again`: of all)."""
    if every and names:
        raise TikhonError("Name methods or say --all, not both.")
    if not every and not names:
        raise TikhonError("Which methods? Name some, as in `tikhon prove elr`, or say --all.")
    if jobs < 1 or (seeds is not None and seeds < 1):
        raise TikhonError(f"--seeds and --jobs must be at least 1, not {seeds} and {jobs}.")
    running = chosen_engine(engine, address, jobs)
    console = Console(highlight=False)
    directory = out or home()
    listings = _due(directory, again, console) if every else [find(name) for name in dict.fromkeys(names)]
    studies = [find_study(listing.family, listing.name) for listing in listings]
    if not studies:
        return
    failed = []
    with running as run_cells:
        for listing, study in zip(listings, studies, strict=True):
            try:
                evidence = _prove(listing, study, seeds, jobs, run_cells)
            except TikhonError as error:
                if not every:
                    raise
                failed.append(listing.name)  # hours of other studies must not wait for this one
                say(f"{listing.name} failed: {error}")
                continue
            console.print(Text(f"\n{listing.class_name}", style="bold"), evidence_view(evidence), sep="\n")
            # A quick look must not take the place of the whole study.
            if len(evidence.seeds) == study.seeds or out is not None:
                console.print(f"\nstored in {store_evidence(evidence, listing, directory)}", soft_wrap=True)
            else:
                console.print(f"\nNot stored: the study asks for {study.seeds} seeds. --out DIR stores this elsewhere.")
    if failed:
        raise TikhonError(f"These studies failed: {', '.join(failed)}.")


def check(names: Sequence[str], out: Path | None) -> None:
    """Name every method whose evidence is stale or missing, and exit with 1 if there is one."""
    listings = [find(name) for name in names] or _every_method()
    directory = out or bundled()
    wanting = {one.name: status for one in listings if (status := status_of(one, directory)) in WANTING}
    for name, status in wanting.items():
        typer.echo(f"{name}: {WANTING[status]}")
    if wanting:
        raise typer.Exit(1)
    typer.echo(f"The evidence of {len(listings)} method{'s' * (len(listings) > 1)} is current.")


def _every_method() -> list[Listing]:
    return sorted(catalogue().values(), key=lambda listing: listing.name)


def _due(directory: Path, again: bool, console: Console) -> list[Listing]:
    """Those that have a study, and whose evidence is stale or missing (`again`: or not)."""
    listings = _every_method()
    unstudied = [one.name for one in listings if not study_path(one.family, one.name).exists()]
    studied = [one for one in listings if one.name not in unstudied]
    current = [one.name for one in studied if not again and status_of(one, directory) not in WANTING]
    if unstudied:
        console.print(f"without a study yet: {', '.join(unstudied)}")
    if current:
        console.print(f"current, not run again: {', '.join(current)}")
    return [one for one in studied if one.name not in current]


def _prove(listing: Listing, study: Study, seeds: int | None, jobs: int, run_cells: RunCells) -> Evidence:
    runs = sum(seeds is None or seed < seeds for _, _, seed in study.trials())
    say(f"{listing.name}: {study.question}")
    with progress(runs, plain=False) as show:
        return prove(listing.name, jobs=jobs, seeds=seeds, on_event=_by_candidate(show), engine=run_cells)


def _by_candidate(show: Callable[[Event], None]) -> Callable[[Event], None]:
    """Progress goes by arm and seed; in a study these do not tell the candidates of an arm apart."""

    def on_event(event: Event) -> None:
        arm = f"{event.cell['arm']}, candidate {event.cell['candidate']}"
        show(event._replace(cell={**event.cell, "arm": arm}))

    return on_event
