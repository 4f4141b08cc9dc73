"""`tikhon compare`: its options and its help."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

TASK = "What is learned"
TRAINING = "How it is trained"
RUNNING = "Where it is run"
OUTPUT = "Where results go"


def compare(
    data: Annotated[
        str,
        typer.Option(
            help="digits, mnist5k, mnist1d, breast_cancer, wine, diabetes (values), or your own module:function.",
            rich_help_panel=TASK,
            show_default=False,
        ),
    ],
    methods: Annotated[
        str,
        typer.Option(
            help="Arms, separated by commas: a name, name(argument=value), or several joined by +. "
            "none is plain training, early_stopping keeps the epoch that is best on the validation split.",
            rich_help_panel=TRAINING,
            show_default=False,
        ),
    ],
    label_noise: Annotated[
        float,
        typer.Option(
            help="Share of wrong labels, in training and validation, never in test. For values: noise in deviations.",
            rich_help_panel=TASK,
        ),
    ] = 0.0,
    noise_kind: Annotated[
        str,
        typer.Option(help="symmetric (any other class) or asymmetric (the next class).", rich_help_panel=TASK),
    ] = "symmetric",
    train_size: Annotated[
        int | None,
        typer.Option(help="Train on so many samples only.", rich_help_panel=TASK, show_default="all"),
    ] = None,
    imbalance: Annotated[
        float,
        typer.Option(help="Most frequent : least frequent class of training, a long tail.", rich_help_panel=TASK),
    ] = 1.0,
    shift: Annotated[
        str | None,
        typer.Option(
            help="Change of the test inputs: rotation:30 (degrees), noise:0.5 (deviations), blur:1 (pixels).",
            rich_help_panel=TASK,
            show_default="none",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="mlp, cnn, or your own module:function.", rich_help_panel=TRAINING),
    ] = "mlp",
    seeds: Annotated[
        int,
        typer.Option(
            help="Runs of each arm. The arms of a seed share split, noise, first weights and order of batches.",
            rich_help_panel=TRAINING,
        ),
    ] = 5,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training data.", rich_help_panel=TRAINING, show_default="by data; digits 60"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples a step.", rich_help_panel=TRAINING)] = 128,
    optimizer: Annotated[str, typer.Option(help="sgd (momentum 0.9) or adam.", rich_help_panel=TRAINING)] = "sgd",
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
    jobs: Annotated[int, typer.Option(help="Runs at a time, one thread each.", rich_help_panel=RUNNING)] = 2,
    engine: Annotated[
        str,
        typer.Option(
            help="local: processes of this machine. ray: tasks of a Ray cluster, with the same numbers "
            "(pip install 'tikhon\\[ray]'); relative times are fair where its machines are alike.",
            rich_help_panel=RUNNING,
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="With --engine ray: the cluster, auto or HOST:PORT.",
            rich_help_panel=RUNNING,
            show_default="RAY_ADDRESS, else a Ray of this machine alone",
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object (fractions, not percent) instead of the table.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
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
            task={
                "source": data,
                "label_noise": label_noise,
                "noise_kind": noise_kind,
                "train_size": train_size,
                "imbalance": imbalance,
                "shift": shift,
            },
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
