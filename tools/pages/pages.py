"""The pages and tables of the site that are made from cards, docstrings and stored numbers."""

from __future__ import annotations

import html
import inspect
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

from tikhon.core.card import PROBLEMS
from tikhon.core.catalogue import Listing, catalogue
from tikhon.report.catalogue import arguments, example, moments
from tikhon.report.evidence import VERDICTS, expected, markdown, with_interval
from tikhon.report.study_plot import study_plots
from tikhon.studies.evidence import Evidence, load_evidence
from tikhon.studies.survey import SURVEYS, Rows, Standing, standings

PAPERS = Path(__file__).parents[2] / "docs" / "papers.json"
HOW_TO = {"noisy-labels", "overfitting", "calibration", "forgetting", "shift", "robustness", "compression", "imbalance"}
"""Problems with a page of their own; pages of other names gather several of the catalogue's."""


# One entry -----------------------------------------------------------------------------------------------------------


def entry_page(listing: Listing) -> str:
    """Everything that is known of an entry: its card, its docstring and what its study found."""
    card = listing.card
    paper = f"[{card.title}](https://arxiv.org/abs/{card.arxiv})" if card.arxiv else card.title
    parts = [
        f"# {listing.class_name}",
        f"{paper}. {card.authors + ', ' if card.authors else ''}{card.year}. "
        f"{card.kind.capitalize()}, family {listing.family}. For: {', '.join(map(problem_link, card.problems))}.",
        f"> {card.claim}",
        formula(card.formula),
        *prose(listing),
        "## In a loop" if listing.classifies else "## Example",
        f"```python\n{example(listing).rstrip()}\n```",
        arguments_table(listing),
        f"**Helps:** {card.helps}",
        f"**Hurts:** {card.hurts}",
        f"**Costs:** {card.cost}",
        *_in_training(listing),
        *_evidence(load_evidence(listing)),
        *_surveys(listing),
        f"On the command line: `tikhon show {listing.name}`, `tikhon prove {listing.name}`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def formula(latex: str) -> str:
    """A formula as MathML, which browsers draw themselves: no script, and text colours of the page."""
    return convert(latex, display="block") if latex else ""


def problem_link(problem: str) -> str:
    return f"[{problem}](../problems/{problem}.md)" if problem in HOW_TO else problem


def prose(listing: Listing) -> list[str]:
    """The paragraphs of the docstring, without the first line of title and without examples."""
    found = (inspect.getdoc(listing.load()) or "").split("\n\n")
    return [one for one in found if ">>>" not in one]


def arguments_table(listing: Listing) -> str:
    rows = [
        (f"`{one['name']}`", f"`{one['type']}`", f"`{one['default']}`" if one["default"] else "", one["about"])
        for one in arguments(listing.load())
    ]
    return "## Arguments\n\n" + markdown(("name", "type", "default", "what"), rows) if rows else ""


def _in_training(listing: Listing) -> list[str]:
    if not listing.is_method:
        return []
    kind = listing.load()
    rows = [(f"`{one['moment']}`", one["slot"], one["about"]) for one in moments(kind)]
    needs = f"Needs: {', '.join(sorted(kind.needs))}." if kind.needs else ""
    exempt = "\n".join(f"- {name}: {why}" for name, why in kind.exempt.items())
    declared = f"What it declares of itself:\n\n{exempt}" if exempt else ""
    return ["## In training", markdown(("moment", "slot", "what happens there"), rows), needs, declared]


def _evidence(evidence: Evidence | None) -> list[str]:
    if evidence is None:
        return ["## Evidence", "There is no study of it yet."]
    rows = [
        (
            f"{one.arm}: {expected(one)} than {one.than}",
            with_interval(one.difference, one.low, one.high, sign="+"),
            "yes" if one.met else "no",
        )
        for one in evidence.findings
    ]
    plots = "".join(f'<figure class="study">{plot.svg}</figure>' for plot in study_plots(evidence))
    return [
        f"## Evidence: {VERDICTS[evidence.status]}",
        evidence.question,
        f"{evidence.setting[0].upper()}{evidence.setting[1:]}; {len(evidence.seeds)} paired seeds, "
        f"{evidence.candidates} candidates an arm, chosen by validation.",
        markdown(("expected", "seen: difference, 95% interval", "met"), rows),
        f'<div class="studies">{plots}</div>',
        "Dots are seeds, diamonds means, crosses means of what was not met; a broken line is the margin asked for.",
    ]


def _surveys(listing: Listing) -> list[str]:
    rows = [
        (
            problem,
            setting,
            with_interval(one.difference, one.low, one.high, sign="+"),
            f"{rank} of {len(found)}",
            f"{one.time:.2f}x",
        )
        for problem, setting, found in _standings()
        for rank, one in enumerate(found, start=1)
        if one.arm == listing.name
    ]
    header = ("survey", "task", "difference to plain training", "rank", "time")
    return ["## Beside all others", markdown(header, rows), "See [the surveys](../surveys.md)."] if rows else []


@lru_cache
def _standings() -> list[tuple[str, str, Sequence[Standing]]]:
    """(problem, task, arms from the best down) of every course of every survey."""
    stored = [(survey, Rows(survey)) for survey in SURVEYS.values()]
    return [
        (survey.problem, course.setting, standings(survey, rows.of(course)))
        for survey, rows in stored
        for course in survey.courses
    ]


# Tables --------------------------------------------------------------------------------------------------------------


def methods_table(problem: str) -> str:
    """The entries that address a problem."""
    if problem not in PROBLEMS:
        raise ValueError(f"The catalogue knows no problem called {problem}.")
    return entries_table(one for one in catalogue().values() if problem in one.card.problems)


def entries_table(entries: Iterable[Listing]) -> str:
    """These entries with what their studies saw first: those whose claim replayed come first."""
    order = {"replayed": 0, "partly": 1, "not": 2}
    found = [(one, load_evidence(one)) for one in entries]
    found.sort(key=lambda pair: (order.get(pair[1].status if pair[1] else "none", 3), pair[0].name))
    rows = [
        (
            f"[{one.class_name}](../methods/{one.name}.md)",
            one.card.claim,
            _first_finding(evidence),
            VERDICTS[evidence.status] if evidence else "no study yet",
        )
        for one, evidence in found
    ]
    return markdown(("method", "what the paper claims", "first of what its study saw", "status"), rows)


def _first_finding(evidence: Evidence | None) -> str:
    if evidence is None:
        return ""
    one = evidence.findings[0]
    return f"{one.measure} {with_interval(one.difference, one.low, one.high, sign='+')} against {one.than}"


def papers_table() -> str:
    """Every paper of the catalogue with its status, for the filter of the page."""
    papers: list[dict[str, Any]] = json.loads(PAPERS.read_text(encoding="utf-8"))
    lines = []
    listed: set[str] = set()
    for paper in papers:
        entries = _entries(paper)
        listed |= {one.name for one in entries}
        lines.append(
            _paper_row(paper["title"], paper["year"], paper["arxiv"], paper["family"], paper["problems"], entries)
        )
    for one in catalogue().values():
        if one.name not in listed:
            card = one.card
            lines.append(_paper_row(card.title, card.year, card.arxiv, one.family, card.problems, [one]))
    families = sorted({line.family for line in lines})
    problems = sorted({problem for line in lines for problem in line.problems})
    done = sum(line.done for line in lines)
    head = "<tr><th>paper</th><th>year</th><th>family</th><th>problems</th><th>in tikhon</th></tr>"
    return "\n".join(
        [
            f'<p id="count" aria-live="polite">{done} of {len(lines)} papers are in the library.</p>',
            '<div id="filter"><input type="search" placeholder="words of a title or name" aria-label="words">',
            _select("family", families),
            _select("problem", problems),
            _select("status", ["in the library", "replayed", "replayed in part", "did not replay", "planned"]),
            "</div>",
            f'<table id="papers"><thead>{head}</thead><tbody>',
            *(line.html for line in lines),
            "</tbody></table>",
        ]
    )


class _Line:
    def __init__(self, html: str, family: str, problems: Iterable[str], done: bool) -> None:
        self.html, self.family, self.problems, self.done = html, family, problems, done


def _entries(paper: dict[str, Any]) -> list[Listing]:
    title = _letters(paper["title"])
    return [
        one
        for one in catalogue().values()
        if (paper["arxiv"] and one.card.arxiv == paper["arxiv"]) or _letters(one.card.title) == title
    ]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _paper_row(
    title: str, year: int | None, arxiv: str, family: str, problems: Iterable[str], entries: list[Listing]
) -> _Line:
    verdicts = [VERDICTS[found.status] if (found := load_evidence(one)) else "no study yet" for one in entries]
    cells = [
        f'<a href="https://arxiv.org/abs/{arxiv}">{html.escape(title)}</a>' if arxiv else html.escape(title),
        str(year or ""),
        family,
        ", ".join(problems),
        "<br>".join(
            f'<a href="../methods/{one.name}/">{one.class_name}</a> <small>{verdict}</small>'
            for one, verdict in zip(entries, verdicts, strict=True)
        )
        or "planned",
    ]
    status = "|".join(["in the library", *verdicts] if entries else ["planned"])
    data = f'data-family="{family}" data-problem="{"|".join(problems)}" data-status="{status}"'
    return _Line(f"<tr {data}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>", family, problems, bool(entries))


def _select(name: str, values: Iterable[str]) -> str:
    options = "".join(f"<option>{value}</option>" for value in values)
    return f'<select data-of="{name}" aria-label="{name}"><option value="">any {name}</option>{options}</select>'
