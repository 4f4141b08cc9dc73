"""Measure how cost grows with size and store it: `python benchmarks/scaling.py`, in any environment that has tikhon."""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import stored  # noqa: E402
from benchmarks.harness import BUSY_CORES, Busy, Load, machine, undisturbed  # noqa: E402
from benchmarks.series import Series, all_series  # noqa: E402
from tikhon.core.files import write_whole  # noqa: E402
from tikhon.studies.cost import TrainingStep, block, enough, peak_memory, peak_of  # noqa: E402

SCALING = HERE / "scaling.json"
BLOCKS = 5, 15
"""At least and at most so many blocks of calls a size: fewer where a call takes long."""
SECONDS = 1.0
"""After which a size has enough blocks."""
console = Console(highlight=False)


def main(
    only: Annotated[str, typer.Option(help="Series whose name contains this.", show_default="all")] = "",
    patience: Annotated[float, typer.Option(help="Seconds to wait for the other processes to rest.")] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Measure on a busy machine too; store nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where rows are stored.")] = SCALING,
) -> None:
    """The time of a call against its size, and the power of the size that it follows: one thread.

    The machine has to be quiet: otherwise nothing is reported.
    """
    torch.set_num_threads(1)
    wanted = [one for one in all_series() if only in one.name]
    if not wanted:
        console.print(f"No series has {only!r} in its name.", markup=False)
        return
    rows, busy = [], []
    with Progress(console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("measuring", total=len(wanted))
        for one in wanted:
            progress.update(bar, description=one.name, refresh=True)
            try:
                rows.append(_measured(one, patience, force))
            except Busy as error:
                busy.append(f"{one.name}: {error}")
            else:
                if not force:
                    _keep(out, rows[-1])
            progress.advance(bar)
    _show(rows)
    if busy:
        console.print("\nNot reported, because the machine was busy; run them again when it rests:")
        console.print("\n".join(f"  {line}" for line in busy), markup=False)
        raise typer.Exit(1)


def _measured(one: Series, patience: float, force: bool) -> dict[str, Any]:
    return measure(one, refuse=False) if force else undisturbed(lambda: measure(one), patience)


def measure(one: Series, refuse: bool = True) -> dict[str, Any]:
    """A row: seconds of a call at every size (median, 10th and 90th percentile), bytes, and the powers fitted to both.

    Raises `Busy` when other processes kept more than a quarter of a core busy, unless told not to refuse.
    """
    times, held = [], []
    with Load() as load:
        for size in one.sizes:
            torch.manual_seed(0)
            call = one.call(size)
            times.append(np.percentile(_seconds(call), (10, 50, 90)))
            if one.memory is not None:
                held.append(peak_memory(call) if isinstance(call, TrainingStep) else peak_of(call))
            del call
            gc.collect()
    if refuse and load.others > BUSY_CORES:
        raise Busy(f"other processes kept {load.others:.2f} cores busy.")
    low, middle, high = np.array(times).T
    return {
        "series": one.name,
        "axis": one.axis,
        "sizes": list(one.sizes),
        "seconds": _rounded(middle),
        "seconds_low": _rounded(low),
        "seconds_high": _rounded(high),
        "exponent": _power(one.sizes, middle),
        "exponent_expected": one.time,
        "bytes": held or None,
        "bytes_exponent": _power(one.sizes, held) if held else None,
        "bytes_expected": one.memory,
        "note": one.note,
        "load": round(load.others, 2),
        "machine": machine(),
        "source": source_of(one),
    }


def source_of(one: Series) -> str:
    """A hash of what the series measures: a stored row of another one is stale."""
    said = repr((one.axis, one.sizes, one.time, one.memory, one.note))
    return hashlib.sha256((said + inspect.getsource(one.call)).encode()).hexdigest()[:16]


def read(path: Path = SCALING) -> list[dict[str, Any]]:
    """All rows; none where nothing was measured yet."""
    return stored.read(path)


def _seconds(call: Callable[[], object]) -> list[float]:
    """Of one call, a value a block."""
    number = enough(call)
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < BLOCKS[0] or (time.perf_counter() < end and len(taken) < BLOCKS[1]):
        taken.append(block(call, number))
    return taken


def _power(sizes: Sequence[int], values: Sequence[float] | np.ndarray) -> float:
    """The slope of log value against log size over the upper half of the sizes: below, fixed costs rule."""
    upper = len(sizes) // 2
    return round(float(np.polyfit(np.log(sizes[upper:]), np.log(values[upper:]), 1)[0]), 3)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _keep(path: Path, row: dict[str, Any]) -> None:
    """Store a row in the place of the one that this series had; rows of series that are gone go too."""
    known = [one.name for one in all_series()]
    rows = {one["series"]: one for one in [*read(path), row] if one["series"] in known}
    ordered = sorted(rows.values(), key=lambda one: known.index(one["series"]))
    write_whole(json.dumps(ordered, indent=1, allow_nan=False) + "\n", path)


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("series", "sizes", "seconds", "power", "expected", "bytes: power", "expected"):
        table.add_column(title, justify="left" if title == "series" else "right")
    for row in rows:
        bytes_of = ("", "") if row["bytes"] is None else (f"{row['bytes_exponent']:.2f}", f"{row['bytes_expected']:g}")
        table.add_row(
            row["series"],
            f"{row['sizes'][0]:,} to {row['sizes'][-1]:,}",
            f"{row['seconds'][0]:.2g} to {row['seconds'][-1]:.2g}",
            f"{row['exponent']:.2f}",
            f"{row['exponent_expected']:g}",
            *bytes_of,
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
