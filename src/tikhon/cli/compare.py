"""`tikhon compare`: its options and its help."""

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


def compare(
    data: Data,
    methods: Annotated[
        str,
        typer.Option(
            help="Arms, separated by commas: a name, name(argument=value), or several joined by +. "
            "none is plain training, early_stopping keeps the epoch that is best on the validation split.",
            rich_help_panel=TRAINING,
            show_default=False,
        ),
    ],
    label_noise: LabelNoise = 0.0,
    noise_kind: NoiseKind = "symmetric",
    train_size: TrainSize = None,
    imbalance: Imbalance = 1.0,
    shift: Shift = None,
    model: Model = "mlp",
    seeds: Annotated[
        int,
        typer.Option(
            help="Runs of each arm. The arms of a seed share split, noise, first weights and order of batches.",
            rich_help_panel=TRAINING,
        ),
    ] = 5,
    epochs: Epochs = None,
    batch_size: BatchSize = 128,
    optimizer: Optimizer = "sgd",
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Step size, constant.", rich_help_panel=TRAINING, show_default="0.1 for sgd, 0.001 for adam"),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results.db (every finished run), results.json and report.html.", rich_help_panel=OUTPUT
        ),
    ] = Path("tikhon-compare"),
    jobs: Jobs = 2,
    engine: Annotated[
        str,
        typer.Option(
            help="local: processes of this machine. ray: tasks of a Ray cluster, with the same numbers "
            "(pip install 'tikhon\\[ray]'); relative times are fair where its machines are alike.",
            rich_help_panel=RUNNING,
        ),
    ] = "local",
    address: Address = None,
    json: Json = False,
) -> None:
    """Train with several methods on the same data and show which helps, with intervals and costs.

    Every finished run is stored at once in --out. The same command continues
    where it was stopped; what is stored is not trained again.

    Which method rescues a network from 40% wrong labels?

      tikhon compare --data digits --label-noise 0.4
          --methods none,early_stopping,elr,mixup,elr+mixup

    Strengths, and more of them over the course of training:

      tikhon compare --data wine
          --methods "none,l2(strength=0.01),l2(strength=linear(0,0.01))"

    Your own data and model, functions of a file here:

      tikhon compare --data own_data:load --model own_data:network
          --methods none,elr --seeds 3

    On the machines of a Ray cluster, from one of them, each with the same
    tikhon and torch:

      tikhon compare --data digits --methods none,elr --seeds 100
          --engine ray --address auto --jobs 64
    """
    comparing = importlib.import_module("tikhon.cli.comparing")  # not at the top: importing torch takes a second
    comparing.run(
        comparing.Settings(
            task=task_of(data, label_noise, noise_kind, train_size, imbalance, shift),
            methods=methods,
            model=model,
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
        ),
        out=out,
        jobs=jobs,
        engine=engine,
        address=address,
        as_json=json,
    )
