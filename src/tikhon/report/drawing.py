"""Drawing as SVG that takes its colours from the page.

matplotlib draws with placeholder colours, which are then replaced by CSS: ``currentColor`` for axes and text and
``var(--arm-N)`` for the arms, so that one drawing follows the light and the dark scheme. Text stays text, and the same
numbers give the same bytes.
"""

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = 6  # --arm-0 ... --arm-5 of the page's style sheet, after which colours repeat with other dashes

INK, MUTED, GRID, PAPER, PLAIN = "#000001", "#000002", "#000003", "#000004", "#000005"
PLACEHOLDERS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--background)",
    PLAIN: "var(--arm-none)",
} | {f"#00001{slot}": f"var(--arm-{slot})" for slot in range(COLOURS)}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11.0,
    "axes.titlesize": 11.0,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.scale_dashes": False,
}


@dataclass(frozen=True)
class Plot:
    """A drawing for the page: its title, the same in words for those who cannot see it, the SVG, and a note below."""

    title: str
    alternative: str
    svg: str
    note: str


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of width x height points in the report's style, whatever style the user's own matplotlib has."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        # The browser draws the text with its own fonts: a sign that is missing in matplotlib's font is no fault.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        yield figure, figure.add_subplot()


def finished(figure: Figure, identity: str, title: str, alternative: str, note: str = "") -> Plot:
    buffer = io.StringIO()
    matplotlib.rcParams["svg.hashsalt"] = identity
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    prefix = re.sub(r"[^a-z0-9]+", lambda part: "-" + part[0].encode().hex() + "-", identity)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)  # ids are unique in a page, not in a plot
    svg = re.sub(r"((?:fill|stroke): )(#0000[01]\d)", lambda found: found[1] + PLACEHOLDERS[found[2]], svg)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        lambda found: (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {found[1]} '
            f'class="plot" role="img" aria-label="{html.escape(alternative)}">'
        ),
        svg,
        count=1,
    )
    return Plot(title, alternative, svg, note)
