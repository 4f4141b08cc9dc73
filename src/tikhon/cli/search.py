"""`tikhon search`: its options and its help."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer


def search(
    question: Annotated[
        list[str], typer.Argument(help="What is wrong, or what you look for, in your own words.", show_default=False)
    ],
    limit: Annotated[int, typer.Option(help="How many entries at most.", min=1)] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array instead.")] = False,
) -> None:
    """Find entries by what they are for, and say why each was found.

    tikhon search "half my labels may be wrong and I have little data"

    Compares your words with titles, cards and docstrings, by words, parts of
    words and latent semantics, after a small glossary has said what they are
    called in the field. Nothing leaves this machine.

    Measured: what should be found is among the first five for 30 of 30
    questions with which the search was made, for 30 of 30 that were held out
    (by the same author), and for 15 of 20 that were written when it was
    finished. Read the reasons: what was found for a weak one is a guess.
    """
    searching = importlib.import_module("tikhon.cli.searching")  # not at the top: importing scikit-learn takes a while
    searching.run(" ".join(question), limit, as_json=json)
