"""Surveys for people: a table a problem as Markdown, and one a course in the terminal. Drawn from the stored rows."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tikhon.core.catalogue import find
from tikhon.report.evidence import markdown, number, with_interval
from tikhon.studies import shifted
from tikhon.studies.survey import PLAIN, SURVEYS, Course, Rows, Standing, Survey, standings


def survey_tables(directory: Path | None = None) -> str:
    """All surveys as Markdown: a row a method, a column a course, best on average first."""
    parts = [_section(survey, Rows(survey, directory)) for survey in SURVEYS.values()]
    return "\n\n".join(part for part in parts if part)


def _section(survey: Survey, rows: Rows) -> str:
    found = {course.name: standings(survey, rows.of(course)) for course in survey.courses}
    if not any(found.values()):
        return ""
    by_arm: dict[str, dict[str, Standing]] = {}
    for name, arms in found.items():
        for one in arms:
            by_arm.setdefault(one.arm, {})[name] = one
    plain = by_arm.pop(PLAIN)
    sign = -1.0 if survey.lower else 1.0
    ranked = sorted(by_arm.items(), key=lambda item: -sign * fmean(one.difference for one in item[1].values()))
    header = ("method", *found, "time")
    first = (PLAIN, *(number(plain[name].mean) if name in plain else "-" for name in found), "1.00x")
    body = [
        (
            find(arm).class_name + _given(survey.courses[0], arm),
            *(_difference(of.get(name)) for name in found),
            f"{median(one.time for one in of.values()):.2f}x",
        )
        for arm, of in ranked
    ]
    lines = [f"## {survey.problem}", "", *(f"- {one.name}: {one.setting}" for one in survey.courses), ""]
    refused = _refused(survey, rows)
    return "\n".join([*lines, markdown(header, [first, *body]), *(["", refused] if refused else [])])


def _given(course: Course, arm: str) -> str:
    """What an arm is given that others are not, in brackets behind its name."""
    given = "" if arm == PLAIN or not course.domains else shifted.in_words(find(arm))
    return f" ({given})" if given else ""


def _difference(one: Standing | None) -> str:
    return "-" if one is None else with_interval(one.difference, one.low, one.high, sign="+")


def _refused(survey: Survey, rows: Rows) -> str:
    stored = [item for course in survey.courses for item in rows.of(course).items()]
    reasons = {arm: str(row["refused"]).rstrip(".") for arm, row in stored if "refused" in row}
    named = "; ".join(f"{arm} ({why})" for arm, why in sorted(reasons.items()))
    return f"Not on every course: {named}." if named else ""


def survey_view(survey: Survey, rows: Rows) -> RenderableType:
    """The courses of a survey for the terminal, one table each."""
    parts: list[RenderableType] = []
    for course in survey.courses:
        parts += [Text(f"\n{course.name}: {course.setting}", style="bold"), _table(survey, course, rows)]
    return Group(*parts)


def _table(survey: Survey, course: Course, rows: Rows) -> RenderableType:
    found = standings(survey, rows.of(course))
    if not found:
        return Text("plain training has no row yet", style="dim")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("arm", survey.measure, f"difference to {PLAIN}, 95% interval", "time"):
        table.add_column(name)
    for one in found:
        style = "" if not one.clear or one.arm == PLAIN else "green" if (one.difference > 0) != survey.lower else "red"
        seen = "" if one.arm == PLAIN else with_interval(one.difference, one.low, one.high, sign="+")
        name = one.arm + _given(course, one.arm)
        table.add_row(name, number(one.mean), Text(seen, style=style), f"{one.time:.2f}x")
    return table
