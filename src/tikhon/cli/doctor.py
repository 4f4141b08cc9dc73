"""`tikhon doctor`: its options and its help."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    patient: Annotated[
        str,
        typer.Argument(
            metavar="PATIENT",
            help="module:function, yours, which returns a Patient; or the folder of a finished run.",
            show_default=False,
        ),
    ],
    arm: Annotated[
        str | None,
        typer.Option(help="Of a finished run: which arm.", show_default="plain training, where it ran"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a page too: one HTML file with figures.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead.")] = False,
) -> None:
    """Examine a trained model with its data: what is wrong, how much, what helps.

    tikhon doctor my_project:patient --out report.html

    The function takes no arguments and returns a model with its data, and
    its history where there is one:

      import tikhon as tk

      def patient():
          return tk.Patient(model, train=(x, y), test=(x_test, y_test))

    Looked for: test samples that are in the training set, wrong labels,
    over-fitting, rare classes, over-confidence, collapsed losses, dead units,
    test data from another distribution, and training that ended too late or
    too early. A finding is a number whose 95% interval lies beyond a limit as
    a whole. Findings come heaviest first, with the methods whose stored
    evidence against that is best and can train this model, and their recipes.
    Nothing is trained or changed.

    A finished run is examined from what it stored: a folder of compare, tune
    or auto, or of tikhon.fit(checkpoint=...), without what needs the model:

      tikhon doctor tikhon-compare --arm mixup
    """
    doctoring = importlib.import_module("tikhon.cli.doctoring")  # not at the top: importing torch takes a second
    doctoring.run(patient, arm=arm, out=out, as_json=json)
