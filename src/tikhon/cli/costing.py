"""What `tikhon cost` does: take steps in turn, and tell what each recipe adds to a plain one in time and memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tikhon.core.catalogue import methods
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe
from tikhon.data import Task, build_model, load_task
from tikhon.studies.arms import Arm, parse_arm, split_arms
from tikhon.studies.cost import MeasuredStep, PlainStep, TrainingStep, peak_memory, seconds
from tikhon.studies.experiment import base_loss

PLAIN = "plain loop"


@dataclass(frozen=True)
class Cost:
    """One row of the table.

    microseconds: the 10th percentile over the rounds, because whatever else the machine does only ever adds to a time;
    ratio: to the plain loop's. ratio_low, ratio_high: 10th and 90th percentile of the ratios within a round.
    """

    name: str
    microseconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    bytes: int
    bytes_ratio: float


def run(model: str, data: str, batch_size: int, methods: str, repetitions: int, *, as_json: bool) -> None:
    """Measure and print."""
    if batch_size < 1 or repetitions < 1:
        raise TikhonError(f"--batch-size and --repetitions must be at least 1, not {batch_size} and {repetitions}.")
    task = load_task(data, seed=0)
    if batch_size > len(task.train):
        raise TikhonError(f"A batch of {batch_size} asked for, but {data} has {len(task.train)} samples for training.")
    arms = [parse_arm(text) for text in _texts(methods)]
    rows, overhead, refused = _measured(arms, model, task, batch_size, repetitions)
    if as_json:
        found = {
            "model": model,
            "data": data,
            "batch_size": batch_size,
            "repetitions": repetitions,
            "threads": 1,
            "overhead_microseconds": overhead,
            "methods": [asdict(row) for row in rows],
            "refused": refused,
        }
        typer.echo(json.dumps(found, indent=1))
        return
    console = Console(highlight=False)
    console.print(_table(rows))
    console.print(
        f"\n{model} on {data}, batches of {batch_size}, one thread, {repetitions} rounds with a step of each:\n"
        "the 10th percentile of the times; the 10th to 90th of their ratios within a round.\n"
        f"The engine itself (none beside the plain loop) takes {overhead:.0f} microseconds a step."
    )
    if refused:
        console.print("\nThese cannot run with this model and data:")
    for name, reason in refused.items():
        console.print(Text(f"  {name}: {reason}"))


def _measured(
    arms: list[Arm], model: str, task: Task, batch_size: int, repetitions: int
) -> tuple[list[Cost], float, dict[str, str]]:
    """The rows, the microseconds that the engine adds, and why the other recipes cannot run."""
    inputs, target = task.train.inputs[:batch_size], task.train.target[:batch_size]
    criterion = base_loss(task)
    with _one_thread():
        plain = PlainStep(criterion, build_model(model, task, seed=0), inputs, target, _optimizer)
        steps: dict[str, MeasuredStep] = {PLAIN: plain}
        memory, refused = {PLAIN: peak_memory(plain)}, {}
        for arm in arms:
            fresh = build_model(model, task, seed=0)
            try:
                step = TrainingStep(Recipe(*arm.methods(), base=criterion), fresh, inputs, target, _optimizer)
                memory[arm.name] = peak_memory(step)
            except TikhonError as error:
                refused[arm.name] = str(error)
            else:
                steps[arm.name] = step
        times = {name: np.array(taken) for name, taken in _timed(steps, repetitions).items()}
    rows = [_row(name, times, memory) for name in steps]
    return rows, _undisturbed(times["none"]) - _undisturbed(times[PLAIN]), refused


def _timed(steps: dict[str, MeasuredStep], repetitions: int) -> dict[str, list[float]]:
    # Drawn between the rounds: a thread that draws would disturb the times.
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("measuring", total=repetitions)
        return seconds(steps, repetitions, lambda: progress.update(bar, advance=1, refresh=True))


def _texts(methods: str) -> list[str]:
    """The recipes asked for, each once, the empty one first: its row shows what the engine itself costs."""
    asked = ["none"]
    for text in split_arms(methods):
        asked += _every_method() if text == "all" else [text]
    return list(dict.fromkeys(asked))


def _every_method() -> list[str]:
    # The reference tasks are classifications.
    arguments = {name: listing.card.example for name, listing in methods().items() if listing.classifies}
    return [f"{name}({given})" if given else name for name, given in arguments.items()]


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    # A small rate: the same batch over and over must neither diverge nor reach a loss of exactly zero.
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def _row(name: str, times: dict[str, NDArray[np.float64]], memory: dict[str, int]) -> Cost:
    taken, plain = _undisturbed(times[name]), _undisturbed(times[PLAIN])
    low, high = (float(value) for value in np.percentile(times[name] / times[PLAIN], (10, 90)))
    return Cost(name, taken, taken / plain, low, high, memory[name], memory[name] / memory[PLAIN])


def _undisturbed(times: NDArray[np.float64]) -> float:
    return float(np.percentile(times, 10) * 1e6)


def _table(rows: list[Cost]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for title in ("microseconds\na step", "times\nplain", "ratio in\na round", "megabytes", "times\nplain"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.name),
            f"{row.microseconds:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.ratio_low:.2f} to {row.ratio_high:.2f}",
            f"{row.bytes / 1e6:.2f}",
            f"{row.bytes_ratio:.2f}",
        )
    return table


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small steps are slower with more threads wherever anything else is running."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
