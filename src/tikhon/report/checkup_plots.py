"""The figures of an examination: each number beside its limit, the curves, the reliability, the classes."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tikhon.report.drawing import INK, MUTED, PAPER, Plot, drawing, finished
from tikhon.report.examined import Drawn, Examined
from tikhon.report.plots import DASHES, Look, draw_curve, reliability_diagram

SPLITS = {
    name: Look(f"var(--arm-{slot})", f"#00001{slot}", dash)
    for slot, (name, dash) in enumerate(zip(("train", "test", "validation"), DASHES, strict=False))
}
"""How a split is drawn in every figure."""

SOUND, FINDING = "#000010", "#000011"
MOST_BARS = 20


def number_plot(one: Examined) -> Plot:
    """A number with its interval, beside its limit and what it is where all is well; ratios by their logarithms."""
    reading, check = one.reading, one.check
    ends = [value for value in (reading.low, reading.value, reading.high) if math.isfinite(value)]
    low, high = min(*ends, check.sound), max(*ends, check.limit)
    colour = FINDING if one.weight >= 1.0 else SOUND
    with drawing(330, 74) as (figure, axes):
        if check.sound == 1.0:
            axes.set_xscale("log")
            high *= 1.5  # room for what has no end
            axes.set_xlim(low / 1.1, high)
            axes.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            room = 0.06 * (high - low)
            axes.set_xlim(low - room, high + room)
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_ylim(-0.6, 1.3)
        axes.axvline(check.sound, color=INK, linewidth=1.2)
        axes.axvline(check.limit, color=MUTED, linewidth=1.4, linestyle=(0, (3, 2)))
        axes.annotate(
            "limit",
            (check.limit, 1.0),
            xytext=(-4, 0) if _place(axes, check.limit) > 0.5 else (4, 0),
            textcoords="offset points",
            horizontalalignment="right" if _place(axes, check.limit) > 0.5 else "left",
            verticalalignment="center",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
        )
        end = axes.get_xlim()[1]
        axes.plot([reading.low, min(reading.high, end)], [0.1, 0.1], color=colour, linewidth=2.2)
        axes.plot([min(reading.value, end)], [0.1], "D" if math.isfinite(reading.value) else ">", color=colour, ms=6.5)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        percent = check.form.find("%}") >= 0
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{round(100 * value, 4):g}%" if percent else f"{value:g}")
        )
        return finished(figure, f"number {one.name}", one.name, f"{one.name}: {one.said()}", one.said())


def curve_plots(drawn: Drawn) -> list[Plot]:
    """A plot of losses and one of metrics, with a line for each split."""
    plots = []
    for what in ("loss", "metric"):
        lines = {name: f"{name}_{what}" for name in SPLITS if f"{name}_{what}" in drawn.curves}
        with drawing(330, 230) as (figure, axes):
            ends = {name: draw_curve(axes, drawn.curves[curve], SPLITS[name]) for name, curve in lines.items()}
            told = [f"{name} ends at {end:.3g}" for name, end in ends.items() if end is not None]
            if told:
                plots.append(finished(figure, f"curve {what}", what, f"{what} by epoch: {'; '.join(told)}"))
    return plots


def class_plot(drawn: Drawn) -> Plot | None:
    """How many samples every class has: bars, or of many classes a line from the most frequent to the rarest."""
    if drawn.counts is None:
        return None
    train, test = (np.array(counts) for counts in drawn.counts)
    by_size = np.argsort(-train, kind="stable")
    with drawing(330, 200) as (figure, axes):
        if len(train) <= MOST_BARS:
            places = np.arange(len(train))
            for shift, name, counts in ((-0.2, "train", train), (0.2, "test", test)):
                axes.bar(places + shift, counts, width=0.38, color=SPLITS[name].placeholder)
            axes.set_xticks(places)
            axes.set_xlabel("class")
        else:
            for name, counts in (("train", train), ("test", test)):
                look = SPLITS[name]
                line = (0, look.dash) if look.dash else "-"
                axes.plot(np.arange(1, len(train) + 1), counts[by_size], color=look.placeholder, linestyle=line)
            axes.set_xlabel("class, the most frequent first")
        axes.grid(axis="x", visible=False)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        most, least = by_size[0], by_size[-1]
        words = f"Training samples: {train[most]} of class {most} down to {train[least]} of class {least}"
        return finished(figure, "classes", "Samples of each class", words)


def reliability_plot(drawn: Drawn) -> Plot | None:
    """Of the predictions on test data."""
    if drawn.reliability is None:
        return None
    return reliability_diagram(drawn.reliability, "test data", SPLITS["test"], None)


def _place(axes: Axes, value: float) -> float:
    """Where along the axis a value is, in [0, 1]."""
    return float(axes.transAxes.inverted().transform(axes.transData.transform((value, 0.0)))[0])
