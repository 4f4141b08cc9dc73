"""What `tikhon survey` does: run the rows that are due, and show all."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import typer

from tikhon.cli.engines import chosen_engine
from tikhon.cli.progress import Show, console, progress, say
from tikhon.core.errors import TikhonError, near_misses
from tikhon.report.survey import survey_view
from tikhon.studies.cells import Event, RunCells
from tikhon.studies.evidence import bundled, home
from tikhon.studies.survey import PLAIN, SURVEYS, Rows, Survey, arms, find_survey, run_survey
from tikhon.studies.workers import run_cells


def run(
    problem: str | None,
    *,
    methods: str | None,
    jobs: int,
    engine: str,
    address: str | None,
    stored: bool,
    out: Path | None,
) -> None:
    """Run and show one survey, or all of them."""
    if jobs < 1:
        raise TikhonError(f"--jobs must be at least 1, not {jobs}.")
    surveys = _surveys(problem)
    running = nullcontext(run_cells) if stored else chosen_engine(engine, address, jobs)
    screen = console()
    with running as run_rows:
        for survey in surveys:
            rows = Rows(survey, out or (bundled() if stored else home()))
            if not stored:
                _run(survey, rows, _wanted(survey, methods), jobs, run_rows)
            screen.print(survey_view(survey, rows))


def check(problem: str | None, out: Path | None) -> None:
    """Name every stored row whose method or trial has changed, and exit with 1 if there is one; count what is there."""
    found = [(survey, Rows(survey, out)) for survey in _surveys(problem)]
    stale = [(survey, course, arm) for survey, rows in found for course, arm in rows.stale()]
    for survey, course, arm in stale:
        typer.echo(f"{survey.problem}, {course.name}: the row of {arm} is stale")
    if stale:
        raise typer.Exit(1)
    for survey, rows in found:
        missing = len(rows.due())
        typer.echo(f"{survey.problem}: the stored rows are current" + (f", {missing} are missing" if missing else ""))


def _surveys(problem: str | None) -> list[Survey]:
    return list(SURVEYS.values()) if problem is None else [find_survey(problem)]


def _wanted(survey: Survey, methods: str | None) -> list[str]:
    known = arms(survey)
    if methods is None:
        return known
    names = [name.strip() for name in methods.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise TikhonError(f"{name!r} is not in the survey of {survey.problem}. {near_misses(name, known)}")
    return [PLAIN, *(name for name in names if name != PLAIN)]  # what all others are held against


def _run(survey: Survey, rows: Rows, wanted: list[str], jobs: int, engine: RunCells) -> None:
    due = rows.due(wanted)
    if not due:
        return
    say(f"{survey.problem}: {len(due)} rows are due")
    with progress(len(due), plain=False) as show:
        run_survey(survey, rows, wanted, jobs=jobs, on_event=_by_course(show), engine=engine)


def _by_course(show: Show) -> Show:
    """Progress goes by arm and seed; a row is an arm on a course."""

    def on_event(event: Event) -> None:
        cell = {
            "arm": f"{event.cell['arm']} on {event.cell['course']['name']}",
            "seed": f"0 to {event.cell['seeds'] - 1}",
        }
        show(event._replace(cell=cell))

    return on_event
