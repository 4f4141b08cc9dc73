"""The page of a comparison: one HTML file that needs nothing but a browser."""

import os

from jinja2 import Environment, PackageLoader, StrictUndefined

from tikhon.core.files import write_whole
from tikhon.report.comparison import Comparison
from tikhon.report.plots import cost_and_gain, learning_curves, looks, paired_differences, reliability
from tikhon.report.wording import CLEAR_NOTE, columns, failures, finding, settings, title


def render_page(comparison: Comparison) -> str:
    """The whole page as HTML text: finding, settings, sortable table and plots. The same numbers give the same text."""
    environment = Environment(
        loader=PackageLoader("tikhon.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        comparison=comparison,
        title=title(comparison),
        finding=finding(comparison),
        settings=settings(comparison),
        columns=columns(comparison),
        failures=failures(comparison),
        note=CLEAR_NOTE if any(arm.differs for arm in comparison.arms) else "",
        looks=looks(comparison),
        curves=learning_curves(comparison),
        differences=paired_differences(comparison),
        reliability=reliability(comparison),
        costs=cost_and_gain(comparison),
    )


def write_page(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Write the page to ``path``, whole or not at all. Raises TikhonError where it cannot be written."""
    write_whole(render_page(comparison), path)
