"""What `tikhon doctor` does: examine the user's model and data, or a finished run, and lay out what was found."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.padding import Padding

from tikhon.cli.progress import console, say
from tikhon.core.errors import TikhonError
from tikhon.data.names import call_user
from tikhon.report.checkup import examine
from tikhon.report.checkup_text import HOW, USE, has_recipes, lines
from tikhon.report.examined import Checkup
from tikhon.report.finished import examine_run
from tikhon.report.patient import Patient
from tikhon.report.rendering import refuse_no_page


def run(patient: str, *, arm: str | None, out: Path | None, as_json: bool) -> None:
    """Print what is found, and write the page where one is asked for."""
    if out is not None:
        refuse_no_page(out)
    found = _examined(patient, arm)
    if out is not None:
        found.write(out)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1, allow_nan=False))
    else:
        _show(found)
    if out is not None:
        say(f"Report: {out}") if as_json else print(f"\nReport: {out}")


def _examined(patient: str, arm: str | None) -> Checkup:
    """Of the function's patient, or of the run that is stored there."""
    if Path(patient).exists():
        return examine_run(patient, arm)
    if arm is not None:
        raise TikhonError("--arm chooses among the arms of a finished run; a patient has none. Leave it out.")
    if ":" not in patient and ("/" in patient or "\\" in patient):
        raise TikhonError(f"There is no {patient}: name the folder of a finished run, or module:function.")
    made = call_user(patient, what="patient")
    if not isinstance(made, Patient):
        raise TikhonError(
            f"patient function {patient!r} returned {type(made).__name__}; expected a tikhon.report.patient.Patient"
        )
    return examine(made)


def _show(found: Checkup) -> None:
    screen = console()
    for indent, text in lines(found):
        screen.print(Padding(text, (0, 0, 0, indent), expand=False) if text else "", highlight=False)
    if has_recipes(found):
        screen.print(f"\n{HOW}\n\n{USE}", highlight=False, markup=False, soft_wrap=True)  # to be pasted: unbroken
