"""`tikhon doctor`: its options and its help."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer


def doctor(
    patient: Annotated[
        str, typer.Argument(metavar="MODULE:FUNCTION", help="Your function that returns a Patient.", show_default=False)
    ],
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead.")] = False,
) -> None:
    """Examine a trained model with its data: what is wrong, how much, what helps.

    tikhon doctor my_project:patient

    The function takes no arguments and returns a model with its data:

      from tikhon.report.patient import Patient

      def patient():
          return Patient(model, train=(x, y), test=(x_test, y_test))

    Looked for: test samples that are in the training set, wrong labels,
    over-fitting, rare classes, over-confidence, collapsed losses, dead units,
    and test data from another distribution. A finding is a number whose 95%
    interval lies beyond a limit as a whole. Findings come heaviest first, with
    the methods whose stored evidence against that is best and can train this
    model, and their recipes. Nothing is trained or changed.
    """
    doctoring = importlib.import_module("tikhon.cli.doctoring")  # not at the top: importing torch takes a second
    doctoring.run(patient, as_json=json)
