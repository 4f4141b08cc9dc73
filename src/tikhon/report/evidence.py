"""Evidence for people: the tables of README and docs, and one study in the terminal. Drawn from the stored numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tikhon.core.catalogue import Listing, catalogue
from tikhon.core.errors import TikhonError
from tikhon.studies.evidence import Evidence, Finding, load_evidence

VERDICTS = {
    "replayed": "replayed",
    "partly": "replayed in part",
    "not": "did not replay",
    "stale": "stale",
    "none": "no verdict",
}
STYLES = {"replayed": "green", "partly": "yellow", "not": "red", "stale": "magenta", "none": "dim"}


# Words -----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """A measure: shares and errors with three decimals, bytes and other large numbers without."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 3) + 0.0:.3f}"


def with_interval(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    text = ("+" if sign and value > 0 else "") + number(value)
    return text if low is None or high is None else f"{text} [{number(low)}, {number(high)}]"


def expected(finding: Finding) -> str:
    """What the claim lets us expect of the measure, as in `metric higher by 0.05`."""
    opposite = "lower" if finding.direction == "higher" else "higher"
    if finding.margin < 0:
        return f"{finding.measure} at most {-finding.margin:g} {opposite}"
    return f"{finding.measure} {finding.direction}" + (f" by {finding.margin:g}" if finding.margin else "")


def relative_time(evidence: Evidence, finding: Finding) -> str:
    """Time of the arm's runs over that of the arm it is held against; "-" where the study did not measure it."""
    arms = (evidence.measures[finding.arm], evidence.measures[finding.than])
    if not all("seconds" in arm for arm in arms):
        return "-"
    return f"{fmean(arms[0]['seconds']) / fmean(arms[1]['seconds']):.2f}x"


# Markdown --------------------------------------------------------------------------------------------------------

_SUMMARY_HEADER = ("entry", "for", "first of what was expected", "seen: difference, 95% interval", "status", "not met")


def summary_table(directory: Path | None = None) -> str:
    """A row an entry as Markdown: what was seen first, and whether the claim replayed, or which part of it did not."""
    rows = [_summary(listing, evidence) for listing, evidence in _stored(directory) if evidence is not None]
    return markdown(_SUMMARY_HEADER, rows) if rows else ""


def _stored(directory: Path | None) -> list[tuple[Listing, Evidence | None]]:
    """Every entry with its evidence, by family and name."""
    listings = sorted(catalogue().values(), key=lambda one: (one.family, one.name))
    return [(listing, load_evidence(listing, directory)) for listing in listings]


def _summary(listing: Listing, evidence: Evidence) -> tuple[str, ...]:
    first = evidence.findings[0]
    missed = [
        ("" if one.arm == listing.name else f"{one.arm}: ") + f"{expected(one)} than {one.than}"
        for one in evidence.findings
        if not one.met
    ]
    return (
        _called(listing),
        ", ".join(listing.card.problems),
        f"{expected(first)} than {first.than}",
        with_interval(first.difference, first.low, first.high, sign="+"),
        f"{VERDICTS[evidence.status]} ({len(evidence.findings) - len(missed)} of {len(evidence.findings)})",
        "; ".join(missed),
    )


def _called(listing: Listing) -> str:
    """A study goes by its own name: what it computes on the way has another."""
    return listing.name if listing.card.kind == "study" else listing.class_name


_HEADER = (
    "entry",
    "claim",
    "setting",
    "expected",
    "held against",
    "with the entry",
    "difference, 95% interval",
    "met",
    "time",
    "status",
)


def evidence_table(directory: Path | None = None) -> str:
    """All evidence as Markdown: one row an expectation, and the entries that have no evidence below it."""
    stored = _stored(directory)
    rows = [row for listing, evidence in stored if evidence is not None for row in _rows(listing, evidence)]
    missing = [listing.class_name for listing, evidence in stored if evidence is None]
    lines = [markdown(_HEADER, rows)] if rows else []
    if missing:
        lines += ["", f"Not yet proved: {', '.join(missing)}."]
    return "\n".join(lines).strip()


def _rows(listing: Listing, evidence: Evidence) -> list[tuple[str, ...]]:
    card = listing.card
    rows: list[tuple[str, ...]] = []
    for place, finding in enumerate(evidence.findings):
        first = place == 0
        rows.append(
            (
                _called(listing) if first else "",
                card.claim if first else "",
                evidence.setting if first else "",
                expected(finding),
                f"{finding.than}: {number(evidence.mean(finding.than, finding.measure)[0])}",
                f"{finding.arm}: {number(evidence.mean(finding.arm, finding.measure)[0])}",
                with_interval(finding.difference, finding.low, finding.high, sign="+"),
                "yes" if finding.met else "no",
                relative_time(evidence, finding),
                VERDICTS[evidence.status] if first else "",
            )
        )
    return rows


def markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table as Markdown."""
    return "\n".join(map(_line, (header, ("---",) * len(header), *rows)))


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def demo_table(results: Mapping[str, Any]) -> str:
    """The table of a comparison, from the object that `tikhon compare --json` prints."""
    header = ("arm", "test accuracy", "against none", "calibration error", "time")
    rows = []
    for arm in results["arms"]:
        difference = (arm["difference"], arm["difference_low"], arm["difference_high"])
        rows.append(
            (
                arm["name"],
                with_interval(arm["mean"], arm["low"], arm["high"]),
                "" if arm["difference"] is None else with_interval(*difference, "+"),
                number(arm["calibration_error"]),
                f"{arm['relative_time']:.2f}x",
            )
        )
    return markdown(header, rows)


def with_table(text: str, name: str, table: str) -> str:
    """A Markdown text with the table between the markers of this name; the rest stays as it is."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise TikhonError(f"The text must hold the markers {begin} and {end} once each, in this order.")
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n{table}\n{end}{after}"


# Terminal --------------------------------------------------------------------------------------------------------


def evidence_view(evidence: Evidence) -> RenderableType:
    """One study in the terminal: the question, the arms, the expectations and the chosen hyper-parameters."""
    seeds, candidates = len(evidence.seeds), evidence.candidates
    head = Text.assemble(
        (VERDICTS[evidence.status], f"bold {STYLES[evidence.status]}"),
        f" ({seeds} seed{'s' * (seeds > 1)}; {candidates} candidate{'s' * (candidates > 1)} an arm, "
        "chosen by validation)",
    )
    parts: list[RenderableType] = [head, Text(evidence.question), Text(evidence.setting, style="dim")]
    if evidence.status == "stale":
        parts.append(Text(f"The method or its study has changed since: tikhon prove {evidence.method}"))
    if evidence.status == "none":
        parts.append(Text("One seed has no interval, and so nothing follows from it."))
    parts += [Text(), _arms(evidence), Text(), _findings(evidence), Text(), Text("chosen", style="bold")]
    for arm, settings in evidence.chosen.items():
        written = ", ".join(f"{name} {value}" for name, value in settings.items())
        parts.append(Padding(Text(f"{arm}: {written}"), (0, 0, 0, 2), expand=False))
    return Group(*parts)


def _plain_table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _arms(evidence: Evidence) -> Table:
    measures = list(dict.fromkeys(finding.measure for finding in evidence.findings))
    table = _plain_table("arm", *(f"{measure}, 95% interval" for measure in measures))
    for arm, values in evidence.measures.items():
        cells = [with_interval(*evidence.mean(arm, one)) if one in values else "-" for one in measures]
        table.add_row(Text(arm), *map(Text, cells))
    return table


def _findings(evidence: Evidence) -> Table:
    table = _plain_table("expected", "seen: difference, 95% interval", "met", "time")
    for finding in evidence.findings:
        table.add_row(
            Text(f"{finding.arm} vs {finding.than}: {expected(finding)}"),
            Text(with_interval(finding.difference, finding.low, finding.high, sign="+")),
            Text("yes", style="green") if finding.met else Text("no" if finding.low is not None else "-", style="red"),
            Text(relative_time(evidence, finding)),
        )
    return table
