"""The plots of docs/benchmarks.md: time against size, drawn from the stored numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import scaling
from tikhon.report.drawing import MUTED, Plot, drawing, finished

LINE = "#000010"


def growth_plots() -> str:
    """One figure a series; empty where nothing is stored."""
    figures = "".join(f'<figure class="study">{_plot(row).svg}</figure>' for row in scaling.read())
    return f'<div class="studies">{figures}</div>' if figures else ""


def _plot(row: dict[str, Any]) -> Plot:
    sizes, seconds = np.array(row["sizes"], dtype=float), np.array(row["seconds"])
    with drawing(330, 230) as (figure, axes):
        axes.fill_between(sizes, row["seconds_low"], row["seconds_high"], color=LINE, alpha=0.2, linewidth=0)
        axes.plot(sizes, seconds, "o-", color=LINE, markersize=4.0)
        upper = sizes[len(sizes) // 2 :]
        line = seconds[-1] * (upper / upper[-1]) ** row["exponent_expected"]
        axes.plot(upper, line, color=MUTED, linestyle=(0, (3, 2)), linewidth=1.4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(row["series"], loc="left")
        axes.set_xlabel(row["axis"])
        axes.set_ylabel("seconds a call")
        words = (
            f"{row['series']}: {seconds[0]:.2g} to {seconds[-1]:.2g} seconds for {sizes[0]:,.0f} to {sizes[-1]:,.0f} "
            f"{row['axis']}, power {row['exponent']:.2f}, expected {row['exponent_expected']:g}"
        )
        return finished(figure, f"growth {row['series']}", row["series"], words)
