"""What `tikhon auto` does: measure, choose methods by what is stored of them, and search as `tikhon tune` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.text import Text

from tikhon.cli.comparing import Settings, chosen_epochs, own_sources
from tikhon.cli.engines import chosen_search
from tikhon.cli.progress import console, progress
from tikhon.cli.tuning import MINUTES, Effort, Where, find, finish, rates, refuse_unfit
from tikhon.core.errors import TikhonError
from tikhon.data import Task, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import cell, training_step
from tikhon.studies.store import Store
from tikhon.studies.workers import run_cells
from tikhon.tuning.candidates import Option, options, space_of
from tikhon.tuning.findings import Finding, findings, measure
from tikhon.tuning.space import Point, Space, read_space

__all__ = ["Effort", "Settings", "Where", "run"]


def run(settings: Settings, effort: Effort, where: Where, *, as_json: bool) -> None:
    """Measure, choose, search; print what was found, and leave `results.json` and `report.html` in `where.out`."""
    refuse_unfit(settings, effort)
    rate = rates(settings, effort)
    chosen_search(where.engine, where.storage, where.address, where.out, "", effort.jobs)  # refused now, if it is
    task = load_task(**settings.task, seed=0)
    plain = _plain(settings, task)
    measured = _measured(plain, where, as_json)
    found = findings(measured)
    trains = _trains(plain, task)
    tried = options(found or [Finding("overfitting", "")], task.kind, trains)
    if not tried:
        raise TikhonError(
            f"No method with stored evidence against {', '.join(one.problem for one in found)} suits this task. "
            "`tikhon list` shows all; search among some with tikhon tune --space."
        )
    while not all(trains(candidate.recipe) for _, candidate in read_space(space_of(tried), rate).every()):
        tried = tried[:-1]  # three may be too many where every two go together
    space = read_space(space_of(tried), rate)
    if not as_json:
        screen = console()
        for line in said(measured, found, tried):
            screen.print(Text(line))
        screen.print()
    if effort.trials is None or effort.minutes is not None:
        effort = replace(effort, minutes=max((effort.minutes or MINUTES) - measured["seconds"] / 60.0, 1e-3))
    result = find(settings, effort, where, space, task, plain=as_json, first=_alone(space))
    more = {
        "measured": measured,
        "findings": [asdict(one) for one in found],
        "candidates": [asdict(one) for one in tried],
    }
    finish(result, more, where.out, as_json=as_json)


def _plain(settings: Settings, task: Task) -> dict[str, Any]:
    """The plain training that is measured."""
    return cell(
        task=settings.task,
        model=settings.model,
        arm="none",
        seed=0,
        epochs=chosen_epochs(settings),
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        sources=own_sources(settings, task),
    )


def _measured(plain: Mapping[str, Any], where: Where, as_json: bool) -> dict[str, Any]:
    """What is stored of it, or what a worker measures now."""
    one = {**plain, "measure": "data and plain training"}
    with Store(where.out) as store:
        if store.get(one) is None:
            with progress(1, plain=as_json) as show:
                run_cells(measure, [one], jobs=1, on_result=store.put, on_event=show)
        result = store.get(one)
        assert result is not None
        return result


def _trains(plain: Mapping[str, Any], task: Task) -> Callable[[str], bool]:
    def trains(recipe: str) -> bool:
        try:
            training_step(plain, task, parse_arm(recipe))()
        except TikhonError:
            return False
        return True

    return trains


def _alone(space: Space) -> list[Point]:
    """Each method by itself, with its default: what is tried first."""
    return [point for point, candidate in space.every() if len(parse_arm(candidate.recipe).calls) == 1]


def said(measured: Mapping[str, Any], found: Sequence[Finding], tried: Sequence[Option]) -> list[str]:
    """What was measured, what it speaks of, and what is tried for that."""
    classes = "values to predict" if measured["classes"] is None else f"{measured['classes']} classes"
    lines = [f"{measured['samples']} samples for training ({measured['inputs']}s), {classes}."]
    lines += [f"{one.problem}: {one.seen}." for one in found]
    if not found:
        lines.append("Nothing stands out; methods against overfitting are tried.")
    lines += ["", "Tried, alone and together:"]
    return lines + [f"  {one.part}  ({one.problem}; {one.evidence})" for one in tried]
