"""The tables of a comparison and of a search for the terminal."""

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from tikhon.report.comparison import Comparison
from tikhon.report.wording import CLEAR_NOTE, columns, failures, finding, title


def comparison_table(comparison: Comparison) -> Table:
    """One row an arm, in the order they were asked for; the best mean is emphasised. Fits 80 columns.

    A percent column shows percent; R squared is a number with three decimals. Colours are rich's business: none in a
    pipe or with NO_COLOR, where the sentence under the table still names the arm that won.
    """
    below = [finding(comparison), *failures(comparison)]
    if any(arm.differs for arm in comparison.arms):
        below.append(CLEAR_NOTE)
    table = Table(
        title=Text(title(comparison), style="bold"),
        caption=Text("\n".join(below)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        pad_edge=False,
    )
    shown = columns(comparison)
    table.add_column("arm", overflow="fold")
    for column in shown:
        # A number is never cut or wrapped: where it gets narrow, long arm names fold.
        table.add_column(column.short, justify="right", no_wrap=True)
    for arm in comparison.arms:
        row = [Text(column.text(arm)) for column in shown]
        table.add_row(Text(arm.name), *row, style="bold green" if arm is comparison.best else "")
    return table


def importance_table(importance: Mapping[str, float]) -> Table:
    """What decides whether a trial is among the best, in percent, most important first."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    table.add_column("decides who is among the best", overflow="fold")
    table.add_column("share", justify="right", no_wrap=True)
    for name, share in importance.items():
        table.add_row(Text(name), f" {share:.0%}")
    return table
