"""What a finished run left behind, examined: from stored numbers and its data, without the trained model.

`tikhon compare`, `tune` and `auto` store measures and curves of every run, and the name of its data, which are loaded
again. `tikhon.fit(checkpoint=...)` stores a history. What needs the model itself is said not to be made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tikhon.core import checkpoint
from tikhon.core.errors import TikhonError
from tikhon.core.fit import History
from tikhon.data import build_model, load_task
from tikhon.data.names import unknown
from tikhon.data.sources import fingerprint, load_source
from tikhon.math.statistics import mean_interval
from tikhon.measures.calibration import PlainReliability
from tikhon.measures.generalisation import gap_over_seeds, generalisation_gap
from tikhon.report import history, readings
from tikhon.report.checks import CHECKS
from tikhon.report.checkup import concluded, described, drawn, readings_of, remedies_for
from tikhon.report.comparison import BASELINE
from tikhon.report.curves import curves_of
from tikhon.report.examined import Checkup, Drawn
from tikhon.report.patient import Kind, Pair
from tikhon.report.readings import Reading
from tikhon.report.summary import delivered_curves, pooled
from tikhon.studies.arms import EARLY_STOPPING
from tikhon.studies.store import canonical_json, read_results

RESULTS = "results.db"
PLAIN = (BASELINE, f"{BASELINE}+{EARLY_STOPPING}")
"""What plain training is called by `compare` and by `tune`."""

NO_MODEL = "The trained model is not stored: return it with its data from a function, and name that."
IN_A_FILE = "A checkpoint holds a history and weights, but neither the model's code nor its data"

Run = tuple[dict[str, Any], dict[str, Any]]
"""What was trained, and what was measured, as `studies.experiment` says."""


@dataclass(frozen=True)
class _Data:
    train: Pair
    test: Pair
    kind: Kind


@dataclass(frozen=True)
class _Histories:
    histories: list[dict[str, list[float]]] = field(default_factory=list)


def examine_run(place: str | os.PathLike[str], arm: str | None = None) -> Checkup:
    """The checks that what is stored allows.

    place: a folder of `tikhon compare`, `tune` or `auto`, whose seeds of one arm are examined together, or of
    `tikhon.fit(checkpoint=...)`; arm: of several, plain training by default. Errors: TikhonError where nothing is
    stored, for an unknown arm, and for runs that all diverged.
    """
    path = Path(place)
    folder = path if path.is_dir() else path.parent
    if (folder / RESULTS).exists() and path in (folder, folder / RESULTS):
        return _examine_runs(_of_one_arm(read_results(folder / RESULTS), folder, arm))
    file = path / checkpoint.LAST if path.is_dir() else path
    if not file.exists() or file.suffix != ".pt":
        raise TikhonError(
            f"{place} holds no finished run: a folder of tikhon compare, tune or auto has a {RESULTS}, one of "
            f"tikhon.fit(checkpoint=...) a {checkpoint.LAST}. To examine a model, name module:function."
        )
    if arm is not None:
        raise TikhonError(f"{file} is a single training without arms: leave --arm out.")
    return _examine_checkpoint(file)


def _of_one_arm(stored: Sequence[Run], folder: Path, arm: str | None) -> list[Run]:
    """The runs of an arm, seed by seed."""
    arms = list(dict.fromkeys(cell["arm"] for cell, _ in stored))
    if not arms:
        raise TikhonError(f"No run has finished in {folder}.")
    plain = [name for name in PLAIN if name in arms]
    chosen = arm or (plain[0] if plain else arms[0] if len(arms) == 1 else None)
    if chosen is None:
        raise TikhonError(f"{folder} holds several arms: choose one with --arm, of {', '.join(arms)}.")
    if chosen not in arms:
        raise unknown("arm", chosen, arms)
    runs = sorted((run for run in stored if run[0]["arm"] == chosen), key=lambda run: run[0]["seed"])
    ways = {canonical_json({**cell, "seed": None}): cell for cell, _ in runs}
    if len(ways) > 1:
        one, other, *_ = ways.values()
        differing = [name for name in one if name != "seed" and one[name] != other.get(name)]
        raise TikhonError(
            f"{folder} holds {len(ways)} trainings of {chosen} that differ in {', '.join(differing)}, and they cannot "
            "be examined together. Run the one that you mean into a folder of its own, with --out."
        )
    finished = [(cell, result) for cell, result in runs if "failed" not in result]
    if not finished:
        raise TikhonError(f"Every run of {chosen} diverged: {runs[0][1]['failed']}")
    return finished


def _examine_runs(runs: Sequence[Run]) -> Checkup:
    cell, results = runs[0][0], [result for _, result in runs]
    task = load_task(**cell["task"], seed=cell["seed"])
    data = _Data((task.train.inputs, task.train.target), (task.test.inputs, task.test.target), task.kind)
    trainings = _Histories([delivered_curves(result) for result in results])
    of_data: dict[str, Callable[[_Data], Reading]] = {
        "duplicates": readings.duplicates,
        "wrong labels": readings.wrong_labels,
        "imbalance": readings.imbalance,
        "shift": readings.shift,
    }
    reads: dict[str, Callable[[], Reading]] = {
        **{name: partial(_of_same_data, cell, read, data) for name, read in of_data.items()},
        "over-fitting": partial(_overfitting, results, data),
        "over-confidence": partial(_over_confidence, results),
        "past its best": partial(history.past_best, trainings),
        "unfinished": partial(history.still_rising, trainings),
    }
    made, not_made = readings_of({name: reads.get(name, partial(_refuse, NO_MODEL)) for name in CHECKS})
    about = {"arm": cell["arm"], "data": cell["task"]["source"], "seeds": str(len(runs)), "model": cell["model"]}
    remedies = remedies_for(build_model(cell["model"], task, seed=cell["seed"]), data)
    diagram = pooled([result["reliability"] for result in results])
    return concluded(made, not_made, remedies, about | described(data), drawn(data, trainings.histories, diagram))


def _of_same_data(cell: Mapping[str, Any], read: Callable[[_Data], Reading], data: _Data) -> Reading:
    """A check of the data of the first seed, where these are those of the run."""
    source, then = cell["task"]["source"], cell["sources"].get("data")
    if then is not None and fingerprint(load_source(source)) != then:
        raise TikhonError(f"{source} gives other samples than it did for this run.")
    return read(data)


def _overfitting(results: Sequence[Mapping[str, Any]], data: _Data) -> Reading:
    """The gap over seeds, or of the one seed over its samples."""
    ends = [(result["train_metric"], result["metric"]) for result in results]
    if len(ends) > 1:
        train, test = torch.tensor(ends, dtype=torch.float64).T
        return readings.read(gap_over_seeds(train, test).gap)
    if data.kind == "values":
        raise TikhonError("One seed of a regression has no interval: run more.")
    right = (
        torch.arange(len(labels)) < round(share * len(labels))
        for share, (_, labels) in zip(ends[0], (data.train, data.test), strict=True)
    )
    return readings.read(generalisation_gap(*right).gap)


def _over_confidence(results: Sequence[Mapping[str, Any]]) -> Reading:
    """Mean confidence less accuracy over seeds, or of the one seed over its predictions, each as sure as its bin."""
    diagrams: list[PlainReliability | None] = [result["reliability"] for result in results]
    known = [_excess(diagram) for diagram in diagrams if diagram is not None]
    if not known:
        raise TikhonError(readings.VALUES)
    values = [float(one.mean()) for one in known] if len(known) > 1 else known[0].tolist()
    return readings.read(mean_interval(values))


def _excess(diagram: PlainReliability) -> Tensor:
    """Confidence less 1 of every right prediction and less 0 of every wrong one, (n,)."""
    found = []
    for confidence, accuracy, count in zip(diagram["confidence"], diagram["accuracy"], diagram["count"], strict=True):
        if confidence is not None and accuracy is not None:
            right = torch.arange(count) < round(accuracy * count)
            found.append(confidence - right.double())
    return torch.cat(found)


def _examine_checkpoint(file: Path) -> Checkup:
    stored = checkpoint.read(file)
    try:
        found = History(**stored["state"]["history"])
        made_of = str(stored["identity"]["samples"])
    except (KeyError, TypeError) as error:
        raise TikhonError(f"{file} is no checkpoint of tikhon.fit: it holds no history.") from error
    curves = curves_of(found)
    trained = _Histories([curves])
    missing = partial(
        _refuse,
        f"{IN_A_FILE}: call tikhon.fit again with this checkpoint in a function that returns "
        "Patient(model, train=..., test=..., history=history), and name that.",
    )
    reads = dict.fromkeys(CHECKS, missing)
    reads |= {
        "past its best": partial(history.past_best, trained),
        "unfinished": partial(history.still_rising, trained),
    }
    made, not_made = readings_of(reads)
    about = {"checkpoint": file.parent.name, "training samples": made_of, "epochs": str(len(found.train_loss))}
    drawing = Drawn({name: [values] for name, values in curves.items()})
    return concluded(made, not_made, lambda _: (), about, drawing)


def _refuse(reason: str) -> Reading:
    raise TikhonError(reason)
