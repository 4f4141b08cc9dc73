"""The arithmetic limit: `python benchmarks/steps.py` measures every method's step on four models, and stores the table.

What `tikhon cost` measures, model by model, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.harness import BUSY_CORES, Busy, Load, machine, wait_until_quiet  # noqa: E402
from benchmarks.stored import read  # noqa: E402
from tikhon.cli.costing import every_method, measured, small_sgd  # noqa: E402
from tikhon.core.errors import TikhonError  # noqa: E402
from tikhon.core.files import write_whole  # noqa: E402
from tikhon.core.recipe import Recipe  # noqa: E402
from tikhon.data import Task, build_model, load_task  # noqa: E402
from tikhon.studies.arms import Arm, parse_arm  # noqa: E402
from tikhon.studies.cost import TrainingStep  # noqa: E402
from tikhon.studies.experiment import base_loss  # noqa: E402
from tikhon.studies.references import REFERENCES  # noqa: E402

STEPS = HERE / "steps.json"
MODELS = tuple(REFERENCES)

console = Console(highlight=False)


def main(
    only: Annotated[str, typer.Option(help="Models whose name contains this.", show_default="all")] = "",
    device: Annotated[str, typer.Option(help="cpu, or cuda, where host synchronisation is looked for too.")] = "cpu",
    patience: Annotated[float, typer.Option(help="Seconds to wait for the other processes to rest.")] = 60.0,
    again: Annotated[bool, typer.Option("--again", help="Measure what is stored for this machine as well.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Measure on a busy machine too; store nothing.")] = False,
    rounds: Annotated[int | None, typer.Option(help="Of steps in turn.", show_default="the model's own")] = None,
    out: Annotated[Path, typer.Option(help="Where the table is stored.")] = STEPS,
) -> None:
    """Time and memory of a training step of every method, beside a plain step and beside its declared passes."""
    here = machine() if device == "cpu" else f"{torch.cuda.get_device_name()}, {machine()}"
    due = [name for name in MODELS if only in name and (again or force or not _stored(out, name, device, here))]
    busy = False
    for name in due:
        start = time.perf_counter()
        try:
            found = _measure(name, device, rounds, patience, force) | {"machine": here}
        except Busy as error:
            busy = True
            console.print(f"{name}: not stored: {error}", markup=False)
            continue
        if not force:
            others = [one for one in read(out) if (one["model"], one["device"]) != (name, device)]
            write_whole(json.dumps([*others, found], indent=1, allow_nan=False) + "\n", out)
        _show(found)
        console.print(f"  measured in {time.perf_counter() - start:.0f} seconds")
    raise typer.Exit(int(busy))


def _measure(name: str, device: str, rounds: int | None, patience: float, force: bool) -> dict[str, Any]:
    """One model. Raises `Busy` where others kept the machine busy meanwhile, unless told to measure all the same."""
    reference = REFERENCES[name]
    rounds = reference.repetitions if rounds is None else rounds
    arms = [parse_arm(text) for text in ["none", *every_method()]]
    task = load_task(reference.data, seed=0)
    if not force:
        wait_until_quiet(patience)
    with Load() as load:
        rows, overhead, refused = measured(arms, name, task, reference.batch_size, rounds, device)
    if not force and load.others > BUSY_CORES:
        raise Busy(f"other processes kept {load.others:.2f} cores busy.")
    return {
        "model": name,
        "device": device,
        "data": reference.data,
        "batch_size": reference.batch_size,
        "rounds": rounds,
        "load": round(load.others, 2),
        "overhead_microseconds": round(overhead, 1),
        "methods": [
            {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(row).items()}
            for row in rows
        ],
        "refused": refused,
        "waiting": None if device == "cpu" else _waiting(arms, name, task, reference.batch_size),
    }


def _waiting(arms: list[Arm], model: str, task: Task, batch_size: int) -> dict[str, str]:
    """Recipes whose step, once it has been taken a few times, makes the host wait for the device, and where."""
    inputs, target = task.train.inputs[:batch_size].cuda(), task.train.target[:batch_size].cuda()
    found: dict[str, str] = {}
    for arm in arms:
        recipe = Recipe(*arm.methods(), base=base_loss(task))
        try:
            step = TrainingStep(recipe, build_model(model, task, seed=0).cuda(), inputs, target, small_sgd)
            for _ in range(3):
                step()
        except (TikhonError, RuntimeError):  # those that `measured` lists as refused
            continue
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        except RuntimeError as error:
            found[arm.name] = str(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def _stored(path: Path, model: str, device: str, here: str) -> bool:
    return any((one["model"], one["device"], one["machine"]) == (model, device, here) for one in read(path))


def _show(found: dict[str, Any]) -> None:
    """The methods that cost most beyond their declared passes, and what cannot run."""
    rows = [row for row in found["methods"] if row["passes_ratio"] is not None]
    beyond = sorted((row for row in rows if row["passes_ratio"] > 1.05), key=lambda row: -row["passes_ratio"])
    console.print(
        f"{found['model']}: {len(rows)} rows, the engine {found['overhead_microseconds']:.0f} microseconds a step; "
        f"more than 5% beyond declared passes: {len(beyond)}; refused: {len(found['refused'])}",
        markup=False,
    )
    for row in beyond:
        console.print(f"  {row['passes_ratio']:6.2f}  {row['name']} ({row['microseconds']:,.0f} µs)", markup=False)
    for name, reason in (found["waiting"] or {}).items():
        console.print(f"  {name} waits for the device: {reason}", markup=False)


if __name__ == "__main__":
    typer.run(main)
