"""Options that several commands have: what is learned, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Any

import typer

TASK = "What is learned"
TRAINING = "How it is trained"
RUNNING = "Where it is run"
OUTPUT = "Where results go"

Data = Annotated[
    str,
    typer.Option(
        help="digits, mnist5k, mnist1d, breast_cancer, wine, diabetes (values), or your own module:function.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
LabelNoise = Annotated[
    float,
    typer.Option(
        help="Share of wrong labels, in training and validation, never in test. For values: noise in deviations.",
        rich_help_panel=TASK,
    ),
]
NoiseKind = Annotated[
    str,
    typer.Option(help="symmetric (any other class) or asymmetric (the next class).", rich_help_panel=TASK),
]
TrainSize = Annotated[
    int | None,
    typer.Option(help="Train on so many samples only.", rich_help_panel=TASK, show_default="all"),
]
Imbalance = Annotated[
    float,
    typer.Option(help="Most frequent : least frequent class of training, a long tail.", rich_help_panel=TASK),
]
Shift = Annotated[
    str | None,
    typer.Option(
        help="Change of the test inputs: rotation:30 (degrees), noise:0.5 (deviations), blur:1 (pixels).",
        rich_help_panel=TASK,
        show_default="none",
    ),
]
Model = Annotated[str, typer.Option(help="mlp, cnn, or your own module:function.", rich_help_panel=TRAINING)]
Epochs = Annotated[
    int | None,
    typer.Option(help="Passes over the training data.", rich_help_panel=TRAINING, show_default="by data; digits 60"),
]
BatchSize = Annotated[int, typer.Option(help="Samples a step.", rich_help_panel=TRAINING)]
Optimizer = Annotated[str, typer.Option(help="sgd (momentum 0.9) or adam.", rich_help_panel=TRAINING)]
Jobs = Annotated[int, typer.Option(help="Runs at a time, one thread each.", rich_help_panel=RUNNING)]
Address = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: the cluster, auto or HOST:PORT.",
        rich_help_panel=RUNNING,
        show_default="RAY_ADDRESS, else a Ray of this machine alone",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object (fractions, not percent) instead of the table.",
        rich_help_panel=OUTPUT,
    ),
]


def task_of(
    data: str, label_noise: float, noise_kind: str, train_size: int | None, imbalance: float, shift: str | None
) -> dict[str, Any]:
    """What is learned, as arguments of `load_task`."""
    return {
        "source": data,
        "label_noise": label_noise,
        "noise_kind": noise_kind,
        "train_size": train_size,
        "imbalance": imbalance,
        "shift": shift,
    }
