"""`tikhon cost`: its options and its help."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer


def cost(
    model: Annotated[
        str, typer.Option(help="mlp, resnet20, transformer, ode, cnn or your own module:function.")
    ] = "mlp",
    data: Annotated[
        str | None,
        typer.Option(
            help="Whose samples make the batch: digits, mnist5k, ... or your own module:function.",
            show_default="digits, for resnet20 enlarged to 3x32x32",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples in the batch.", show_default="128; resnet20, transformer: 32")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Recipes separated by commas, as in elr,elr+mixup; all stands for every method.")
    ] = "all",
    repetitions: Annotated[
        int | None,
        typer.Option(help="Rounds, in each of which every recipe takes steps.", show_default="by model, 10 to 200"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Measure time and memory of a training step, beside a plain one written by hand and beside declared passes.

    tikhon cost --model cnn --methods none,sam,orth_conv
    """
    costing = importlib.import_module("tikhon.cli.costing")  # not at the top: importing torch takes a second
    costing.run(model, data, batch_size, methods, repetitions, as_json=json)
