"""Measure what is due and store it: `python benchmarks/run.py peers`, in an environment that has the peers."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.harness import Busy, Case, cases, measure, undisturbed  # noqa: E402
from benchmarks.stored import RESULTS, drop_others, keep_row, source_of  # noqa: E402

console = Console(highlight=False)


def main(
    folder: Annotated[str, typer.Argument(help="peers or vision: whose cases, since each needs its own environment.")],
    only: Annotated[str, typer.Option(help="Cases whose name or peer contains this.", show_default="all")] = "",
    seconds: Annotated[float, typer.Option(help="How long each case takes turns.")] = 4.0,
    patience: Annotated[float, typer.Option(help="Seconds to wait for the other processes to rest.")] = 60.0,
    dry: Annotated[bool, typer.Option("--dry", help="Compare answers only; measure and store nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Measure on a busy machine too; store nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where rows are stored.")] = RESULTS,
) -> None:
    """Our implementation beside those of others: the same inputs, in turn, in one process of one thread.

    A ratio below 1 means that ours is faster. The machine has to be quiet: otherwise nothing is reported.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # of peers; ours are tested for
    wanted = [one for one in _found(folder) if only in one.name or only in one.peer]
    if not wanted:
        console.print(f"No case of {folder} has {only!r} in its name or peer.", markup=False)
        return
    if dry:
        raise typer.Exit(_compare_answers(wanted))
    rows, busy = [], []
    with Progress(console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("measuring", total=len(wanted))
        for one in wanted:
            progress.update(bar, description=f"{one.name} ({one.peer})", refresh=True)
            try:
                row = _measured(one, seconds, patience, force)
            except Busy as error:
                busy.append(f"{one.name} ({one.peer}): {error}")
            else:
                rows.append({**row, "environment": folder, "source": source_of(one)})
                if not force:
                    keep_row(out, rows[-1])
            progress.advance(bar)
    if not only and not force:
        drop_others(out, folder, wanted)
    show(rows)
    if busy:
        console.print("\nNot reported, because the machine was busy; run them again when it rests:")
        console.print("\n".join(f"  {line}" for line in busy), markup=False)
        raise typer.Exit(1)


def _measured(one: Case, seconds: float, patience: float, force: bool) -> dict[str, Any]:
    return measure(one, seconds, refuse=False) if force else undisturbed(lambda: measure(one, seconds), patience)


def _found(folder: str) -> list[Case]:
    if not (HERE / folder).is_dir():
        raise typer.BadParameter(f"there is no folder benchmarks/{folder}.")
    for path in sorted((HERE / folder).glob("*.py")):
        importlib.import_module(f"benchmarks.{folder}.{path.stem}")
    return cases()


def _compare_answers(wanted: Sequence[Case]) -> int:
    failed = 0
    for one in wanted:
        torch.manual_seed(0)
        same = one.pair().agree()
        failed += not same
        console.print(f"{'same' if same else 'OTHER'}  {one.name} ({one.peer})", markup=False)
    return int(failed > 0)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table, best first, and how it stands with the two targets."""
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for title in ("case", "peer"):
        table.add_column(title)
    for title in ("ratio", "10% to 90%", "memory", "answer"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda row: row["ratio"]):
        table.add_row(
            row["case"],
            f"{row['peer']} {row['peer_version']}",
            f"{row['ratio']:.2f}",
            f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
            f"{row['memory_ratio']:.2f}",
            "same" if row["same_answer"] else "other",
        )
    console.print(table)
    slower = [row for row in rows if row["ratio"] > row["limit"]]
    console.print(
        f"\n{len(rows)} cases: median ratio {median(row['ratio'] for row in rows):.2f}; slower than the peer in "
        f"{len(slower)}."
    )


if __name__ == "__main__":
    typer.run(main)
