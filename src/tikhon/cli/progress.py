"""How far the runs are, on standard error: bars for people at a terminal, sparse lines for logs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from tikhon.studies.cells import Event
from tikhon.tuning.search import Update

Show = Callable[[Event], None]
SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """One line beside the result."""
    print(f"tikhon: {text}", file=sys.stderr, flush=True)


def progress(total: int, *, plain: bool) -> AbstractContextManager[Show]:
    """What to hand to `run_cells` as `on_event` while `total` runs are done. plain: lines even at a terminal.

    Pipes, dumb terminals and NO_COLOR get lines too.
    """
    screen = console(stderr=True)
    return _bars(screen, total) if screen.is_interactive and not plain else _lines(total)


def console(*, stderr: bool = False) -> Console:
    """Where rich text goes. With NO_COLOR it gets no escape codes at all, as in a pipe: rich itself would keep bold."""
    return Console(stderr=stderr, force_terminal=False if os.environ.get("NO_COLOR") else None)


@contextmanager
def _bars(screen: Console, total: int) -> Iterator[Show]:
    """One bar for all with the time left, and one for each run that goes on."""
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=40)),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True, expand=True, speed_estimate_period=60) as bars:
        overall = bars.add_task(f"{total} runs", total=total)
        fractions: dict[str, float] = {}
        running: dict[str, Any] = {}

        def show(event: Event) -> None:
            name = _name(event.cell)
            fractions[name] = event.fraction
            bars.update(overall, completed=sum(fractions.values()))
            if event.kind == "started":
                running[name] = bars.add_task(name, total=1.0)
            elif event.kind == "progress":
                bars.update(running[name], completed=event.fraction)
            elif name in running:  # a worker may die before it has begun
                bars.remove_task(running.pop(name))
            if event.kind == "retried":
                screen.print(_retry(name), markup=False, highlight=False)

        yield show


@contextmanager
def _lines(total: int) -> Iterator[Show]:
    begin = last = first = time.monotonic()
    done = 0

    def show(event: Event) -> None:
        nonlocal done, last, first
        if event.kind == "retried":
            say(_retry(_name(event.cell)))
        if event.kind != "finished":
            return
        done += 1
        now = time.monotonic()
        if done == 1:
            first = now  # what came before was mostly the start of the workers, which tells nothing of what is left
        elif done < total and now - last >= SECONDS_BETWEEN_LINES:
            last = now
            say(f"{done} of {total} runs done, about {(now - first) / (done - 1) * (total - done):.0f} s left")

    yield show
    say(f"{done} of {total} runs done in {time.monotonic() - begin:.0f} s")


@contextmanager
def searching(name: str, *, plain: bool) -> Iterator[Callable[[Update], None]]:
    """How far a search is, in the same manner."""
    screen = console(stderr=True)
    if screen.is_interactive and not plain:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f}%"))
        with Progress(*columns, console=screen, transient=True, expand=True) as bars:
            bar = bars.add_task(f"{name}: no trial yet", total=1.0)
            yield lambda update: bars.update(bar, completed=update.fraction, description=_told(name, update))
        return
    begin = last = time.monotonic()
    latest: Update | None = None

    def show(update: Update) -> None:
        nonlocal last, latest
        latest = update
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{_told(name, update)}; {update.fraction:.0%} of the budget used")

    yield show
    if latest is not None:
        say(f"{_told(name, latest)}; in {time.monotonic() - begin:.0f} s")


def _told(name: str, update: Update) -> str:
    found = "" if update.best is None else f", best {update.best:.3f}"
    return f"{name}: {update.trials} trial{'s' * (update.trials != 1)}{found}"


def _name(cell: Mapping[str, Any]) -> str:
    return f"{cell['arm']}, seed {cell['seed']}"


def _retry(name: str) -> str:
    return f"{name}: its worker process died; trying once more"
