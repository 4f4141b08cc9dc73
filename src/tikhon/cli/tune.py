"""`tikhon tune`: its options and its help."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from tikhon.cli.options import (
    OUTPUT,
    RUNNING,
    TRAINING,
    Address,
    BatchSize,
    Data,
    Epochs,
    Imbalance,
    Jobs,
    Json,
    LabelNoise,
    Model,
    NoiseKind,
    Optimizer,
    Shift,
    TrainSize,
    task_of,
)

SEARCH = "How it is searched"

LearningRate = Annotated[
    str | None,
    typer.Option(
        help="A range, low..high, or a number.",
        rich_help_panel=SEARCH,
        show_default="a fifth of the usual to twice it: 0.02..0.2 for sgd",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        help="Time for all: half for recipes, half for plain training. Time spent before an interruption counts.",
        rich_help_panel=SEARCH,
        show_default="10 without --trials",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(help="Trials of recipes, and as many of plain training.", rich_help_panel=SEARCH),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Of the search. With --trials and --jobs 1 the same trials come again.",
        rich_help_panel=SEARCH,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        help="Runs of the best recipe and of plain training at the end, on seeds that the search has not seen.",
        rich_help_panel=TRAINING,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="optuna (pip install 'tikhon\\[optuna]'), or ray: Ray Tune, on a cluster too "
        "(pip install 'tikhon\\[ray-tune]').",
        rich_help_panel=RUNNING,
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="URL of a database. Commands that share one, each with an --out of its own, work on the same search.",
        rich_help_panel=RUNNING,
        show_default="trials.db in --out",
    ),
]
Out = Annotated[
    Path,
    typer.Option(help="Folder for all trials and runs, results.json and report.html.", rich_help_panel=OUTPUT),
]


def tune(
    data: Data,
    space: Annotated[
        str,
        typer.Option(
            help="Recipes to search among, or a file with them: low..high is a number to find, {a, b} one of these "
            "values, ? behind a method leaves open whether it takes part, | stands between alternatives.",
            rich_help_panel=SEARCH,
            show_default=False,
        ),
    ],
    label_noise: LabelNoise = 0.0,
    noise_kind: NoiseKind = "symmetric",
    train_size: TrainSize = None,
    imbalance: Imbalance = 1.0,
    shift: Shift = None,
    model: Model = "mlp",
    seeds: Seeds = 5,
    epochs: Epochs = None,
    batch_size: BatchSize = 128,
    optimizer: Optimizer = "sgd",
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    trials: Trials = None,
    seed: Seed = 0,
    out: Out = Path("tikhon-tune"),
    jobs: Jobs = 2,
    engine: Engine = "optuna",
    storage: Storage = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Find the best recipe: which methods, and how strong.

    Every trial trains one recipe on three seeds, keeps the epoch that was best
    on validation data, and is stopped early where it is worse than most. The
    best is then held against plain training, which was searched for as long:
    on other seeds, and on test data that the search has not seen.

    Every finished run is stored at once. The same command continues where it
    was stopped.

    How strong, and is MixUp worth it?

      tikhon tune --data digits --label-noise 0.4 --minutes 10
          --space "elr(strength=0.5..10) + mixup(alpha=0.1..1.0)?"

    One of several, in the same order of trials whenever it is run:

      tikhon tune --data wine --trials 30 --jobs 1
          --space "(l2(strength=1e-5..1e-1) | mixup | sam(radius=0.01..0.5))"

    Several machines on one search, each with this command:

      tikhon tune --data own_data:load --space recipes.txt --minutes 60
          --storage postgresql://user@host/trials
    """
    tuning = importlib.import_module("tikhon.cli.tuning")  # not at the top: importing torch takes a second
    tuning.run(
        tuning.Settings(
            task=task_of(data, label_noise, noise_kind, train_size, imbalance, shift),
            methods=space,
            model=model,
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=None,
        ),
        tuning.Effort(learning_rate=learning_rate, minutes=minutes, trials=trials, seed=seed, jobs=jobs),
        tuning.Where(out=out, engine=engine, storage=storage, address=address),
        as_json=json,
    )
