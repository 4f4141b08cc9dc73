"""The commands by name, and how every one of them ends.

A command's file holds its options and help; what needs torch is imported when the command runs, so that help is there
at once.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

from tikhon import __version__
from tikhon.cli import auto, compare, cost, doctor, explain, list, prove, search, show, survey, tune
from tikhon.core.errors import TikhonError

P = ParamSpec("P")

app = typer.Typer(
    name="tikhon",
    help="Regularisation for PyTorch: which method makes your network generalise, measured.",
    epilog="Example: tikhon compare --data digits --label-noise 0.4 --methods none,elr,mixup",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tikhon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _ending_well(command: Callable[P, None]) -> Callable[P, None]:
    """Wrong input ends with one message and exit code 2, Ctrl-C with 130, and neither with a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except TikhonError as error:
            print(f"tikhon: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            print(
                "\ntikhon: interrupted. What had finished is stored; after compare, tune, auto, survey and prove --all "
                "the same command continues with the rest.",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None

    return run


app.command("compare")(_ending_well(compare.compare))
app.command("tune")(_ending_well(tune.tune))
app.command("auto")(_ending_well(auto.auto))
app.command("doctor", no_args_is_help=True)(_ending_well(doctor.doctor))
app.command("list")(_ending_well(list.list_methods))
app.command("search", no_args_is_help=True)(_ending_well(search.search))
app.command("show")(_ending_well(show.show))
app.command("explain")(_ending_well(explain.explain))
app.command("prove", no_args_is_help=True)(_ending_well(prove.prove))
app.command("cost")(_ending_well(cost.cost))
app.command("survey")(_ending_well(survey.survey))
