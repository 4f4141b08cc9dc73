"""Draw docs/benchmarks.md and the README's lines about speed from the stored numbers: the end of `make bench`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import scaling, stored  # noqa: E402
from tikhon.core.files import write_whole  # noqa: E402
from tikhon.report.evidence import markdown, with_table  # noqa: E402

README, PAGE, STEPS = ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "steps.json"
NOTHING = "Nothing is stored yet."
TYPICAL = 0.8
"""The target of half of the cases, beside the limit that each has."""
FEW = 5
ENGINE = {"mlp": 25.0}
"""The target of what the engine adds to a step, in microseconds, where steps are so short that these can be told."""
BEYOND = 1.05
"""The target of a method's step, over the plain one and the declared passes."""
SLACK = 0.15
"""What a fitted power may be above that of the mathematics: logarithms, and memory that no cache holds any more."""

Rows = Sequence[dict[str, Any]]


# Beside peers --------------------------------------------------------------------------------------------------------


def cases(rows: Rows) -> str:
    """How the rows stand with the targets, and the table of them, those where ours is slowest first."""
    if not rows:
        return NOTHING
    ordered = sorted(rows, key=lambda row: (-row["ratio"], row["case"], row["peer"]))
    header = ("case", "peer", "time, 10% to 90%", "memory", "same answer", "note")
    return "\n\n".join([targets(rows), markdown(header, [_case(row) for row in ordered]), _machines(rows)])


def targets(rows: Rows) -> str:
    """The two targets of time, then memory and answers: a line each."""
    ratios = [row["ratio"] for row in rows]
    slower = [f"{row['case']} ({row['peer']})" for row in rows if row["ratio"] > row["limit"]]
    surely = sum(row["ratio_low"] > row["limit"] for row in rows)
    other = [f"{row['case']} ({row['peer']})" for row in rows if not row["same_answer"]]
    heavier = sum(row["memory_ratio"] > 1.0 for row in rows)
    return "\n".join(
        [
            f"- Not slower than the peer in any case, `compare` at most 5%: {_met(not slower)}; slower in "
            f"{_named(slower, len(rows))}.",
            f"- Slower by more than the spread, above its limit in nine of ten rounds, in {surely} of {len(rows)}.",
            f"- At most {TYPICAL:g} of the peer's time in the median case: {_met(median(ratios) <= TYPICAL)}; "
            f"it is {median(ratios):.2f}.",
            f"- Memory: {median(row['memory_ratio'] for row in rows):.2f} of the peer's in the median case, more than "
            f"the peer's in {heavier} of {len(rows)}.",
            f"- Another answer than the peer's in {_named(other, len(rows))}.",
        ]
    )


def summary(rows: Rows) -> str:
    """For the README."""
    if not rows:
        return NOTHING
    ratios = [row["ratio"] for row in rows]
    peers = sorted({row["peer"] for row in rows}, key=str.lower)
    slower = sum(row["ratio"] > row["limit"] for row in rows)
    return (
        f"In {len(rows)} cases beside {', '.join(peers)} the median case takes {median(ratios):.2f} of the peer's time "
        f"and {median(row['memory_ratio'] for row in rows):.2f} of its memory; ours is slower in {slower}."
    )


def _case(row: dict[str, Any]) -> tuple[str, ...]:
    time = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    return (
        row["case"],
        f"{row['peer']} {row['peer_version']}",
        f"**{time}**" if row["ratio"] > row["limit"] else time,
        f"{row['memory_ratio']:.2f}",
        "yes" if row["same_answer"] else "no",
        row["note"],
    )


# A step of every method ----------------------------------------------------------------------------------------------


def steps(found: Rows) -> str:
    """Time of a step with each method over a plain one, a column a model, in brackets that beyond declared passes."""
    if not found:
        return NOTHING
    columns = [f"{one['model']}, {one['device']}" for one in found]
    times = [{row["name"]: row for row in one["methods"]} for one in found]
    names = sorted({name for column in times for name in column})
    rows = [(name, *(_step(column.get(name)) for column in times)) for name in names]
    said = "\n".join(map(_judged, columns, found))
    return "\n\n".join([said, markdown(("recipe", *columns), rows), _machines(found)])


def _judged(column: str, one: dict[str, Any]) -> str:
    """How the steps of a model stand with their targets."""
    added, most = one["overhead_microseconds"], ENGINE.get(one["model"])
    if most is None:
        engine = next(f"{row['ratio']:.2f} of a plain step" for row in one["methods"] if row["name"] == "none")
    else:
        engine = f"a plain step and {added:.0f} microseconds ({_met(added <= most)}: {most:.0f})"
    rows = [row for row in one["methods"] if row["passes_ratio"] is not None]
    above = [row["name"] for row in rows if row["passes_ratio"] > BEYOND]
    return (
        f"- {column}: a step with a recipe of no methods takes {engine}; more than {BEYOND - 1.0:.0%} beyond the "
        f"declared passes are {_named(above, len(rows))}."
    )


def _step(row: dict[str, Any] | None) -> str:
    """Empty where the recipe cannot run with the model."""
    if row is None:
        return ""
    return f"{row['ratio']:.2f}" + ("" if row["passes_ratio"] is None else f" ({row['passes_ratio']:.2f})")


# Against size --------------------------------------------------------------------------------------------------------


def growth(rows: Rows) -> str:
    """Which power of its size each series follows, and which the mathematics asks for."""
    if not rows:
        return NOTHING
    worse = [row["series"] for row in rows if row["exponent"] > row["exponent_expected"] + SLACK]
    header = ("series", "sizes", "seconds a call", "power (mathematics)", "of bytes", "note")
    said = f"More than {SLACK:g} above the power of the mathematics: {_named(worse, len(rows))}."
    return "\n\n".join([said, markdown(header, [_series(row) for row in rows]), _machines(rows)])


def _series(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["series"],
        f"{row['sizes'][0]:,} to {row['sizes'][-1]:,}",
        f"{row['seconds'][0]:.2g} to {row['seconds'][-1]:.2g}",
        f"{row['exponent']:.2f} ({row['exponent_expected']:g})",
        "" if row["bytes"] is None else f"{row['bytes_exponent']:.2f} ({row['bytes_expected']:g})",
        row["note"],
    )


# Words ---------------------------------------------------------------------------------------------------------------


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def _named(some: Sequence[str], of: int) -> str:
    """How many, and which, where these are few enough to be read."""
    return f"{len(some)} of {of}" + (f": {'; '.join(sorted(some))}" if 0 < len(some) <= FEW else "")


def _machines(rows: Rows) -> str:
    return "Measured on " + "; ".join(sorted({row["machine"] for row in rows})) + "."


def page(text: str) -> str:
    """The text of docs/benchmarks.md with the tables of what is stored."""
    drawn = {"benchmarks": cases(stored.read()), "steps": steps(stored.read(STEPS)), "scaling": growth(scaling.read())}
    for name, table in drawn.items():
        text = with_table(text, name, table)
    return text


def front(text: str) -> str:
    """The text of the README with its sentence."""
    return with_table(text, "benchmarks", summary(stored.read()))


if __name__ == "__main__":
    write_whole(page(PAGE.read_text(encoding="utf-8")), PAGE)
    write_whole(front(README.read_text(encoding="utf-8")), README)
