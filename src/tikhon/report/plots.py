"""The plots of a comparison. Each is about as wide as a phone, in the size that its text is read at; the page puts
drawings side by side where there is room.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from tikhon.measures.calibration import PlainReliability
from tikhon.report.comparison import BASELINE, Arm, Comparison
from tikhon.report.drawing import COLOURS, INK, MUTED, PAPER, PLAIN, Plot, drawing, finished
from tikhon.report.wording import in_percent, interval, metric_name, number, signed

DASHES = ((), (6.0, 2.0), (2.0, 2.0), (7.0, 2.0, 2.0, 2.0))
BASELINE_DASH = (1.0, 1.5)


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: a CSS colour, the placeholder for it in matplotlib, and on-off lengths of its dashes."""

    colour: str
    placeholder: str
    dash: tuple[float, ...]


def looks(comparison: Comparison) -> dict[str, Look]:
    """Colour and dashes of every arm by name, the same in all plots; ``none`` is neutral."""
    methods = [arm.name for arm in comparison.arms if arm.name != BASELINE]
    found = {BASELINE: Look("var(--arm-none)", PLAIN, BASELINE_DASH)}
    for index, name in enumerate(methods):
        slot, dash = index % COLOURS, DASHES[(index + index // COLOURS) % len(DASHES)]
        found[name] = Look(f"var(--arm-{slot})", f"#00001{slot}", dash)
    return found


def learning_curves(comparison: Comparison) -> list[Plot]:
    """A plot for every named curve: the mean over seeds by epoch, in a band from the lowest to the highest seed.

    Curves of different length are drawn as far as all seeds of the arm got, so that a mean is always over all seeds.
    """
    look = looks(comparison)
    names = list(dict.fromkeys(name for arm in comparison.arms for name in arm.curves))
    plots = []
    for name in names:
        metric = name.endswith("metric")
        title = name.replace("metric", metric_name(comparison)).replace("_", " ")
        with drawing(330, 250) as (figure, axes):
            ends = []
            for arm in comparison.arms:
                end = draw_curve(axes, arm.curves.get(name, []), look[arm.name])
                if end is not None:
                    ends.append(f"{arm.name} ends at {_curve_number(comparison, metric, end)}")
            if metric:
                _metric_ticks(comparison, axes.yaxis.set_major_formatter)
            if ends:
                plots.append(finished(figure, f"curve {name}", title, f"{title} by epoch: {'; '.join(ends)}"))
    return plots


def draw_curve(axes: Axes, curves: Sequence[Sequence[float]], look: Look) -> float | None:
    """Draw the mean of curves by epoch, in a band from the lowest to the highest, and return where it ends.

    None, and nothing drawn, where there is no epoch.
    """
    values = _by_epoch(curves)
    if not values.size:
        return None
    epochs = np.arange(1, values.shape[1] + 1)
    axes.fill_between(epochs, values.min(0), values.max(0), color=look.placeholder, alpha=0.16, linewidth=0)
    axes.plot(epochs, values.mean(0), color=look.placeholder, linestyle=(0, look.dash) if look.dash else "-")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return float(values.mean(0)[-1])


def paired_differences(comparison: Comparison) -> Plot | None:
    """A row for each arm: the differences to ``none`` by seed as dots, their mean and its 95% interval on a zero line.

    None where there is no ``none`` or nothing beside it.
    """
    look = looks(comparison)
    arms = [arm for arm in comparison.arms if arm.name != BASELINE and arm.difference is not None]
    if not arms:
        return None
    lines = []
    with drawing(330, 60 + 42 * len(arms)) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.grid(axis="y", visible=False)
        for row, arm in enumerate(arms):
            colour, difference = look[arm.name].placeholder, float(arm.difference or 0.0)
            seeds = comparison.paired(arm)
            axes.plot(seeds, [row + 0.2] * len(seeds), "o", color=colour, markersize=4.5, alpha=0.6, markeredgewidth=0)
            words = signed(comparison, arm.difference)
            if arm.difference_low is not None and arm.difference_high is not None:
                axes.plot([arm.difference_low, arm.difference_high], [row, row], color=colour, linewidth=2.2)
                words += f" {interval(comparison, arm.difference_low, arm.difference_high)}"
            axes.plot([difference], [row], "D", color=colour, markersize=6.5)
            # Names stand above their row instead of beside it: a long name must not squeeze the plot.
            axes.annotate(
                f"{_short(arm.name, 30)}  {words}",
                (0, row),
                xycoords=("axes fraction", "data"),
                xytext=(0, 8),
                textcoords="offset points",
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},  # no line runs through a name
            )
            lines.append(f"{arm.name} {words}")
        axes.set_ylim(len(arms) - 0.55, -0.85)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.set_xlabel(f"difference in {metric_name(comparison)}{', points' if in_percent(comparison) else ''}")
        _metric_ticks(comparison, axes.xaxis.set_major_formatter, unit="")
        return finished(figure, "differences", "Difference to none", f"Paired difference to none: {'; '.join(lines)}")


def reliability(comparison: Comparison) -> list[Plot]:
    """For each arm that has confidences: accuracy by confidence, with the area of a dot for its share of samples."""
    look = looks(comparison)
    drawn = [
        reliability_diagram(arm.reliability, arm.name, look[arm.name], arm.calibration_error)
        for arm in comparison.arms
        if arm.reliability is not None
    ]
    return [plot for plot in drawn if plot is not None]


def reliability_diagram(diagram: PlainReliability, name: str, look: Look, error: float | None) -> Plot | None:
    """One of them; None without samples. error: the calibration error, where it is to be told."""
    bins = np.array([diagram["confidence"], diagram["accuracy"], diagram["count"]], dtype=np.float64)
    confidence, accuracy, count = bins[:, np.isfinite(bins).all(0)]  # an empty bin has neither of the first two
    if not count.size:
        return None
    with drawing(170, 178) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.plot(confidence, accuracy, color=look.placeholder, linewidth=1.4)
        axes.scatter(confidence, accuracy, s=8 + 150 * count / count.sum(), color=look.placeholder, lw=0)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0, 0.5, 1], ["0", "50", "100"])
        axes.set_xlabel("confidence %")
        axes.set_ylabel("accuracy %")
        over = float(((confidence - accuracy) * count).sum() / count.sum())
        told = "" if error is None else f", calibration error {100 * error:.1f}%"
        alternative = (
            f"Reliability of {name}: on average {'over' if over > 0 else 'under'}confident "
            f"by {100 * abs(over):.1f} points{told}"
        )
        return finished(figure, f"reliability {name}", name, alternative)


def cost_and_gain(comparison: Comparison) -> list[Plot]:
    """Gain over ``none`` (or the metric, without it) against time and against memory, with 95% intervals."""
    plots = []
    for cost, cost_of in _COSTS.items():
        arms = [(arm, cost_of(arm), _gain(comparison, arm)) for arm in comparison.arms]
        points = [(arm, x, *gain) for arm, x, gain in arms if x is not None and math.isfinite(x * gain[0])]
        if not points:
            continue
        look = looks(comparison)
        with drawing(330, 260) as (figure, axes):
            for arm, x, y, low, high in points:
                colour = look[arm.name].placeholder
                axes.plot([x, x], [low, high], color=colour, linewidth=1.6)
                axes.plot([x], [y], "o", color=colour, markersize=7)
            axes.margins(0.14)
            axes.set_xlabel(f"{cost} relative to none")
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
            against = metric_name(comparison) if comparison.baseline is None else "gain"
            axes.set_ylabel(f"{against}{', points' if in_percent(comparison) and against == 'gain' else ''}")
            _metric_ticks(comparison, axes.yaxis.set_major_formatter, unit="" if against == "gain" else "%")
            numbers = _label_points(figure, axes, [(arm.name, x, y, low, high) for arm, x, y, low, high in points])
            words = "; ".join(f"{arm.name} {number(comparison, y)} at {x:.2f}x" for arm, x, y, _, _ in points)
            plots.append(
                finished(figure, f"cost {cost}", f"Gain against {cost}", f"Gain against {cost}: {words}", numbers)
            )
    return plots


_COSTS: dict[str, Callable[[Arm], float | None]] = {
    "time": lambda arm: arm.relative_time,
    "memory": lambda arm: arm.relative_memory,
}


def _gain(comparison: Comparison, arm: Arm) -> tuple[float, float, float]:
    """What an arm gained, with its interval; ``none`` gained nothing by definition."""
    if comparison.baseline is None:
        middle, low, high = arm.mean, arm.low, arm.high
    elif arm is comparison.baseline:
        return 0.0, 0.0, 0.0
    else:
        middle, low, high = (
            math.nan if arm.difference is None else arm.difference,
            arm.difference_low,
            arm.difference_high,
        )
    return middle, middle if low is None else low, middle if high is None else high


def _label_points(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float, float, float]]) -> str:
    """Write the name of each point (x, y, low, high) beside it; where not all names have room, numbers instead.

    Returns what the numbers stand for; "" where there are names.
    """
    figure.draw_without_rendering()
    marks = []
    for _, x, y, low, high in points:
        (left, middle), (_, bottom), (_, top) = axes.transData.transform([(x, y), (x, low), (x, high)])
        marks += [
            Bbox.from_bounds(left - 6, middle - 6, 12, 12),
            Bbox.from_bounds(left - 1, bottom, 2, top - bottom),
        ]

    def write(texts: list[str]) -> list[Text | None]:
        taken, labels = list(marks), []
        for text, (_, x, y, _, _) in zip(texts, points, strict=True):
            labels.append(_write_beside(axes, text, x, y, taken))
        return labels

    names = write([_short(name, 24) for name, *_ in points])
    if None not in names:
        return ""
    for label in names:
        if label is not None:
            label.remove()
    numbers = write([str(row) for row in range(1, len(points) + 1)])
    # In a crowd without room for even a number, the table has to tell.
    return ", ".join(f"{row + 1} {points[row][0]}" for row, label in enumerate(numbers) if label is not None)


def _write_beside(axes: Axes, text: str, x: float, y: float, taken: list[Bbox]) -> Text | None:
    """Write at the first place around (x, y) that is free and inside the axes, and take it; None if there is none."""
    places = [(9, 0, "left", "center"), (-9, 0, "right", "center")]
    for side, align in ((0, "center"), (9, "left"), (-9, "right")):
        places += [(side, -11, align, "top"), (side, 11, align, "bottom")]
    frame = axes.get_window_extent()
    for right, up, horizontal, vertical in places:
        label = axes.annotate(
            text,
            (x, y),
            xytext=(right, up),
            textcoords="offset points",
            horizontalalignment=horizontal,
            verticalalignment=vertical,
        )
        label.set_in_layout(False)  # the axes stay where the places were measured
        extent = label.get_window_extent()
        inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
        if inside and not any(extent.overlaps(other) for other in taken):
            taken.append(extent)
            return label
        label.remove()
    return None


def _by_epoch(curves: Sequence[Sequence[float]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The curves as (seeds, epochs), cut where the shortest ends or any seed is no longer finite."""
    length = min((len(curve) for curve in curves), default=0)
    values = np.array([list(curve)[:length] for curve in curves], dtype=np.float64).reshape(len(curves), length)
    broken = np.flatnonzero(~np.isfinite(values).all(0))
    return values[:, : broken[0]] if broken.size else values


def _curve_number(comparison: Comparison, metric: bool, value: float) -> str:
    return number(comparison, value) if metric else f"{value:.3g}"


def _metric_ticks(comparison: Comparison, set_formatter: Callable[[FuncFormatter], None], unit: str = "%") -> None:
    if in_percent(comparison):
        set_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 4) + 0.0:g}{unit}"))


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
