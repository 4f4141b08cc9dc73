"""The page of a comparison."""

import os

from tikhon.core.files import write_whole
from tikhon.report.comparison import Comparison
from tikhon.report.plots import cost_and_gain, learning_curves, looks, paired_differences, reliability
from tikhon.report.rendering import render
from tikhon.report.wording import CLEAR_NOTE, columns, failures, finding, settings, title


def render_page(comparison: Comparison) -> str:
    """The whole page as HTML text: finding, settings, sortable table and plots. The same numbers give the same text."""
    look = looks(comparison)
    return render(
        "page.html",
        comparison=comparison,
        title=title(comparison),
        finding=finding(comparison),
        settings=settings(comparison),
        columns=columns(comparison),
        failures=failures(comparison),
        note=CLEAR_NOTE if any(arm.differs for arm in comparison.arms) else "",
        looks={arm.name: look[arm.name] for arm in comparison.arms},
        curves=learning_curves(comparison),
        differences=paired_differences(comparison),
        reliability=reliability(comparison),
        costs=cost_and_gain(comparison),
    )


def write_page(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Write the page to ``path``, whole or not at all. Raises TikhonError where it cannot be written."""
    write_whole(render_page(comparison), path)
