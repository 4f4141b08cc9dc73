"""What `tikhon compare` does: check everything, run what is missing, sum up, and write it down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tikhon.cli.engines import chosen_engine
from tikhon.cli.progress import console, progress, say
from tikhon.core.errors import TikhonError
from tikhon.core.files import write_whole
from tikhon.data import Task, build_model, load_task
from tikhon.data.names import source_of
from tikhon.data.sources import fingerprint, load_source
from tikhon.report.comparison import BASELINE, to_json
from tikhon.report.page import write_page
from tikhon.report.summary import summarise
from tikhon.report.tables import comparison_table
from tikhon.studies.arms import Arm, parse_arm, split_arms
from tikhon.studies.cells import Cell, Result, RunCells
from tikhon.studies.experiment import EPOCHS, EPOCHS_OF_OWN_DATA, attempt_cell, cell, training_step
from tikhon.studies.store import Store


@dataclass(frozen=True)
class Settings:
    """What was asked for. task: arguments of `load_task` but the seed. epochs: None for the default of the data."""

    task: Mapping[str, Any]
    methods: str
    model: str
    seeds: int
    epochs: int | None
    batch_size: int
    optimizer: str
    learning_rate: float | None


def run(settings: Settings, *, out: Path, jobs: int, engine: str, address: str | None, as_json: bool) -> None:
    """Compare, print the result on standard output, and leave `results.json` and `report.html` in `out`."""
    if settings.seeds < 1 or jobs < 1:
        raise TikhonError(f"--seeds and --jobs must be at least 1, not {settings.seeds} and {jobs}.")
    running = chosen_engine(engine, address, jobs)
    arms = chosen_arms(settings.methods)
    task = load_task(**settings.task, seed=0)
    cells = planned(settings, arms, task)
    with Store(out) as store:
        run_missing(cells, store, running, jobs, plain=as_json)
        results: dict[str, dict[int, Result]] = {arm.name: {} for arm in arms}
        for one in cells:
            result = store.get(one)
            assert result is not None  # run_missing ends only when all are there
            results[one["arm"]][one["seed"]] = result
        comparison = summarise(described(settings, task, cells[0]), results)
        text = json.dumps(to_json(comparison), indent=1, allow_nan=False)
        write_whole(text + "\n", out / "results.json")
        write_page(comparison, out / "report.html")
    if as_json:
        print(text)
        say(f"Report: {out / 'report.html'}")
    else:
        console().print(comparison_table(comparison))
        print(f"\nReport: {out / 'report.html'}")


def chosen_arms(text: str) -> list[Arm]:
    """The arms asked for, and `none` before them where it was left out; the same arm twice is refused."""
    plain = parse_arm(BASELINE)
    arms: dict[str, Arm] = {}
    for one in split_arms(text):
        arm = parse_arm(one)
        earlier = arms.setdefault(_identity(arm), arm)
        if earlier is not arm:
            raise TikhonError(f"--methods names the same arm twice: {earlier.name!r} and {arm.name!r}. Leave one out.")
    if not arms:
        raise TikhonError("--methods names no arm. Write for example --methods none,elr,mixup.")
    if _identity(plain) not in arms:
        say(f"{BASELINE} is added: every arm is compared to plain training.")
        return [plain, *arms.values()]
    return [plain if key == _identity(plain) else arm for key, arm in arms.items()]


def _identity(arm: Arm) -> str:
    """Equal for arms that train alike, however they are written: the order of methods does not matter."""
    calls = sorted(
        (listing.name, sorted((name, repr(value)) for name, value in given.items())) for listing, given in arm.calls
    )
    return repr((calls, arm.early_stopping))


def planned(settings: Settings, arms: Sequence[Arm], task: Task) -> list[Cell]:
    """The runs, seed by seed, after everything that can be refused before hours of training has been."""
    epochs = chosen_epochs(settings)
    sources = own_sources(settings, task)
    cells: list[Cell] = []
    for seed in range(settings.seeds):
        for arm in arms:
            one = cell(
                task=settings.task,
                model=settings.model,
                arm=arm.name,
                seed=seed,
                epochs=epochs,
                batch_size=settings.batch_size,
                optimizer=settings.optimizer,
                learning_rate=settings.learning_rate,
                sources=sources,
            )
            if seed == 0:
                training_step(one, task, arm)
            cells.append(one)
    return cells


def chosen_epochs(settings: Settings) -> int:
    """What was asked for, or what suits the data."""
    return EPOCHS.get(settings.task["source"], EPOCHS_OF_OWN_DATA) if settings.epochs is None else settings.epochs


def own_sources(settings: Settings, task: Task) -> dict[str, str]:
    """What the numbers rest on beside tikhon: hashes of the user's data and model. Either is refused if it is unfit."""
    build_model(settings.model, task, seed=0)
    sources = {}
    if ":" in settings.task["source"]:
        sources["data"] = _own_data(settings.task["source"])
    if ":" in settings.model:
        sources["model"] = source_of(settings.model)
    return sources


def _own_data(source: str) -> str:
    """What tells the user's samples from others, so that results of changed data are not shown for these."""
    first, second = (fingerprint(load_source(source)) for _ in range(2))
    if first != second:
        raise TikhonError(
            f"{source} returns other samples at every call, so arms could not be compared on the same ones. "
            "Draw random numbers from a generator with a fixed seed."
        )
    return first


def run_missing(
    cells: Sequence[Cell], store: Store, running: AbstractContextManager[RunCells], jobs: int, *, plain: bool
) -> None:
    """Run the cells that the store does not have, and store each as soon as it has finished."""
    missing = [one for one in cells if store.get(one) is None]
    if len(missing) < len(cells):
        say(f"{len(cells) - len(missing)} of {len(cells)} runs are stored in {store.path.parent} already.")
    if missing:
        with running as run_cells, progress(len(missing), plain=plain) as show:
            run_cells(attempt_cell, missing, jobs=jobs, on_result=store.put, on_event=show)


def described(settings: Settings, task: Task, one: Cell) -> dict[str, Any]:
    """The task as the report names it. What was not asked for is None."""
    modifiers = settings.task
    classes = task.kind == "classes"
    return {
        "data": modifiers["source"],
        "metric": "accuracy" if classes else "r2",
        "label_noise": modifiers["label_noise"],
        "noise_kind": modifiers["noise_kind"] if modifiers["label_noise"] and classes else None,
        "train_size": modifiers["train_size"],
        "imbalance": modifiers["imbalance"] if modifiers["imbalance"] != 1 else None,
        "shift": modifiers["shift"],
        "train_samples": len(task.train),
        "validation_samples": len(task.validation),
        "test_samples": len(task.test),
        "model": one["model"],
        "epochs": one["epochs"],
        "batch_size": one["batch_size"],
        "optimizer": one["optimizer"],
        "learning_rate": one["learning_rate"],
        "seeds": settings.seeds,
        "versions": one["versions"],
    }
