"""What `tikhon cost` does: take each recipe's steps in turn with plain ones, and tell what it adds in time and memory.

Fast steps are taken in blocks, as training takes one after another. A step is also held against its declared passes:
what the plain step takes, and those passes more, timed in the same rounds on the plain model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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
from tikhon.studies.arms import Arm, example, parse_arm, split_arms
from tikhon.studies.cost import PlainStep, TrainingStep, enough, peak_memory, seconds
from tikhon.studies.experiment import base_loss
from tikhon.studies.passes import PASSES, Passes
from tikhon.studies.references import OTHER, REFERENCES

PLAIN = "plain loop"
FORWARD, BOTH, SWEEP = "plain forward", "plain forward and backward", "plain sweep"


@dataclass(frozen=True)
class Cost:
    """One row of the table.

    microseconds: the 10th percentile over the rounds, because whatever else the machine does only ever adds to a time;
    ratio: to the plain loop's. ratio_low, ratio_high: 10th and 90th percentile of the ratios within a round;
    passes_ratio: to the plain loop and the passes that the method declares; None for recipes of several methods and for
    arguments other than the example's.
    """

    name: str
    microseconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    passes_ratio: float | None
    bytes: int
    bytes_ratio: float


def run(
    model: str, data: str | None, batch_size: int | None, methods: str, repetitions: int | None, *, as_json: bool
) -> None:
    """Measure and print; None stands for what suits the model."""
    reference = REFERENCES.get(model, OTHER)
    data = reference.data if data is None else data
    batch_size = reference.batch_size if batch_size is None else batch_size
    repetitions = reference.repetitions if repetitions is None else repetitions
    if batch_size < 1 or repetitions < 1:
        raise TikhonError(f"--batch-size and --repetitions must be at least 1, not {batch_size} and {repetitions}.")
    task = load_task(data, seed=0)
    if batch_size > len(task.train):
        raise TikhonError(f"A batch of {batch_size} asked for, but {data} has {len(task.train)} samples for training.")
    arms = [parse_arm(text) for text in _texts(methods)]
    rows, overhead, refused = measured(arms, model, task, batch_size, repetitions)
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
        f"\n{model} on {data}, batches of {batch_size}, one thread, {repetitions} rounds of each:\n"
        "the 10th percentile of the times; the 10th to 90th of their ratios within a round;\n"
        "times passes: beside the plain step and the passes that the method declares.\n"
        f"The engine itself (none beside the plain loop) takes {overhead:.0f} microseconds a step."
    )
    if refused:
        console.print("\nThese cannot run with this model and data:")
    for name, reason in refused.items():
        console.print(Text(f"  {name}: {reason}"))


def measured(
    arms: list[Arm], model: str, task: Task, batch_size: int, repetitions: int, device: str = "cpu"
) -> tuple[list[Cost], float, dict[str, str]]:
    """The rows, the microseconds that the engine adds, and why the other recipes cannot run.

    Every recipe takes turns with a plain loop that is made anew for it: the steps of all recipes together are more than
    the caches hold, and what was made first was found to run a twentieth faster among them. arms: "none" first.
    """
    inputs, target = task.train.inputs[:batch_size].to(device), task.train.target[:batch_size].to(device)
    criterion = base_loss(task)
    wait = _nothing if device == "cpu" else torch.get_device_module(device).synchronize
    rows: list[Cost] = []
    refused: dict[str, str] = {}
    # Drawn between the rounds: a thread that draws would disturb the times.
    with _one_thread(), Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("measuring", total=len(arms) * repetitions)
        for done, arm in enumerate(arms):
            progress.update(bar, description=arm.name, completed=done * repetitions, refresh=True)
            plain = PlainStep(criterion, build_model(model, task, seed=0).to(device), inputs, target, small_sgd)
            fresh = build_model(model, task, seed=0).to(device)
            try:
                step = TrainingStep(Recipe(*arm.methods(), base=criterion), fresh, inputs, target, small_sgd)
                memory = {PLAIN: peak_memory(plain), arm.name: peak_memory(step)}
                calls: dict[str, Callable[[], object]] = {PLAIN: plain, arm.name: step}
                if _declared(arm.name) not in (None, Passes()):
                    calls |= {FORWARD: plain.forward, BOTH: plain.forward_and_backward, SWEEP: plain.sweep}
                numbers = {name: enough(call, wait) for name, call in calls.items()}  # several steps: some diverge
                taken = seconds(
                    calls, numbers, repetitions, lambda: progress.update(bar, advance=1, refresh=True), wait
                )
            except (TikhonError, RuntimeError) as error:  # torch too refuses: some layers have no second derivative
                refused[arm.name] = str(error)
                continue
            times = {name: np.array(found) for name, found in taken.items()}
            if not rows:
                rows.append(_row(PLAIN, times, memory))
            rows.append(_row(arm.name, times, memory))
    return rows, rows[1].microseconds - rows[0].microseconds, refused


def _nothing() -> None:
    """A processor has done what it was given when the call returns."""


def _texts(methods: str) -> list[str]:
    """The recipes asked for, each once, the empty one first: its row shows what the engine itself costs."""
    asked = ["none"]
    for text in split_arms(methods):
        asked += every_method() if text == "all" else [text]
    return list(dict.fromkeys(asked))


def every_method() -> list[str]:
    """Every method that classifies, as the reference tasks ask for, with the arguments of its card's example."""
    return [example(name) for name, listing in methods().items() if listing.classifies]


def small_sgd(parameters: Any) -> torch.optim.Optimizer:
    """Of a rate so small that a thousand steps on the same batch leave the weights, and what a step does, the same."""
    return torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)


def _row(name: str, times: dict[str, NDArray[np.float64]], memory: dict[str, int]) -> Cost:
    taken, plain = _undisturbed(times[name]), _undisturbed(times[PLAIN])
    low, high = (float(value) for value in np.percentile(times[name] / times[PLAIN], (10, 90)))
    declared = _declared(name)
    passes = None if declared is None else taken / (plain + _duration(declared, times))
    return Cost(name, taken, taken / plain, low, high, passes, memory[name], memory[name] / memory[PLAIN])


def _declared(name: str) -> Passes | None:
    """What a row says of its passes: of one method, with the arguments of its example."""
    if name in (PLAIN, "none"):
        return Passes()
    method = name.partition("(")[0]
    return PASSES.get(method, Passes()) if method in methods() and name == example(method) else None


def _duration(declared: Passes, times: dict[str, NDArray[np.float64]]) -> float:
    """Microseconds of passes and sweeps, as the plain model takes them; they are timed where some are declared."""
    if FORWARD not in times:
        return 0.0
    forward, both, sweep = (_undisturbed(times[name]) for name in (FORWARD, BOTH, SWEEP))
    return declared.forward * forward + declared.backward * max(0.0, both - forward) + declared.sweeps * sweep


def _undisturbed(times: NDArray[np.float64]) -> float:
    return float(np.percentile(times, 10) * 1e6)


def _table(rows: list[Cost]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for title in ("µs\na step", "times\nplain", "ratio in\na round", "times\npasses", "megabytes", "times\nplain"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.name),
            f"{row.microseconds:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.ratio_low:.2f} to {row.ratio_high:.2f}",
            "" if row.passes_ratio is None else f"{row.passes_ratio:.2f}",
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
