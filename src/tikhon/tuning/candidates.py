"""Which methods to try against a problem: those that address it, ranked by the evidence that is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from tikhon.core.catalogue import Listing, find, methods
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe
from tikhon.studies.arms import example, parse_arm
from tikhon.studies.evidence import Evidence, load_evidence
from tikhon.studies.shifted import asks_for
from tikhon.studies.survey import SURVEYS, Rows, arms, first_strength, from_scratch, standings
from tikhon.tuning.findings import Finding
from tikhon.tuning.space import read_space

EACH, ALL = 3, 6
"""How many methods are tried for a problem, and for all that was found."""

WIDTH = 10.0
"""A strength is looked for between its default over this and its default times this."""

_STATUS = {"replayed": 2, "partly": 1}


@dataclass(frozen=True)
class Option:
    """A method to try: against which problem, why, and its part of a search space."""

    name: str
    problem: str
    evidence: str
    part: str


def options(found: Sequence[Finding], suits: str, trains: Callable[[str], bool] = lambda _: True) -> list[Option]:
    """The best founded methods for each problem, the same one once.

    suits: "classes" or "values". trains: whether a recipe can train the model at hand on the data at hand.
    """
    chosen: dict[str, Option] = {}
    for finding in found:
        new = 0
        for name, evidence in ranked(finding.problem, suits):
            if new == EACH or len(chosen) == ALL:
                break
            if name in chosen or not trains(as_shown(find(name))):
                continue
            chosen[name] = Option(name, finding.problem, evidence, part_of_space(find(name)))
            new += 1
    return list(chosen.values())


def ranked(problem: str, suits: str, unlabelled: bool = False) -> list[tuple[str, str]]:
    """(method, evidence) of those that have helped against a problem, best first.

    unlabelled: whether inputs like those of the test are at hand, for methods that cannot do without.

    First by the mean difference to plain training over the tasks of the survey of this problem, where that was for the
    better; then those whose study replayed what is claimed of them, whole before in part, by the largest difference
    that it found in the measure that decides.
    """
    surveyed = _surveyed(problem)

    def fits(listing: Listing) -> bool:
        return _suits(listing, suits) or (unlabelled and needs_unlabelled(listing))

    helped = [(name, said) for name, (gain, said) in surveyed.items() if gain > 0.0 and fits(find(name))]
    proved = []
    for name, listing in methods().items():
        if name in surveyed or problem not in listing.card.problems or not fits(listing):
            continue
        evidence = load_evidence(listing)
        if evidence is not None and evidence.status in _STATUS:
            gain = _gain(evidence, problem)
            proved.append((-_STATUS[evidence.status], -gain, name, _in_words(evidence, gain, problem)))
    return [*helped, *((name, said) for *_, name, said in sorted(proved))]


def _decides(problem: str) -> tuple[str, float]:
    """The measure, and 1 where more of it is better."""
    return ("calibration_error", -1.0) if problem == "calibration" else ("metric", 1.0)


def _gain(evidence: Evidence, problem: str) -> float:
    measure, sign = _decides(problem)
    gains = [sign * one.difference for one in evidence.findings if one.measure == measure and one.met]
    return max(gains, default=0.0)


def _in_words(evidence: Evidence, gain: float, problem: str) -> str:
    measure, sign = _decides(problem)
    said = "its study replayed" + (" in part" if evidence.status == "partly" else "")
    return f"{said}: {sign * gain:+.3f} {measure.replace('_', ' ')}" if gain > 0.0 else said


def _surveyed(problem: str) -> dict[str, tuple[float, str]]:
    """Method -> mean gain over the courses that it ran on, and that in words; largest first."""
    survey = SURVEYS.get(problem)
    if survey is None:
        return {}
    rows = Rows(survey)
    sign = -1.0 if survey.lower else 1.0
    seen = [one for course in survey.courses for one in standings(survey, rows.of(course))]
    found = {}
    for name in arms(survey)[1:]:
        mine = [one for one in seen if one.arm == name]
        if mine:
            gain = sign * fmean(one.difference for one in mine)
            found[name] = (
                gain,
                f"survey: {sign * gain:+.3f} {survey.measure.replace('_', ' ')} on {len(mine)} "
                f"task{'s' * (len(mine) > 1)}, {median(one.time for one in mine):.1f}x time",
            )
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _suits(listing: Listing, kind: str) -> bool:
    """Whether it can be made as its card shows it, for a training from scratch of this kind of task."""
    if not from_scratch(listing):
        return False
    if kind == "classes":
        return listing.classifies
    try:
        parse_arm(as_shown(listing))
    except TikhonError:
        return False
    return "classes" not in listing.load().needs


def needs_unlabelled(listing: Listing) -> bool:
    """Whether it is made with inputs like those of the test, and not without."""
    return not listing.classifies and asks_for(listing) == "unlabelled" and from_scratch(listing)


def part_of_space(listing: Listing) -> str:
    """The method with its first strength to be found, `elr(strength=0.3..30.0)`; without one, as it is."""
    given = parse_arm(as_shown(listing)).calls[0][1]
    scalar = first_strength(listing, given)
    if scalar is None:
        return as_shown(listing)
    name, default = scalar
    example = ", ".join(part for part in listing.card.example.split(", ") if part and not part.startswith(f"{name}="))
    for high in (WIDTH * default, default + 0.9 * (1.0 - default)):
        low = default / WIDTH
        if low < high:
            part = _call(listing, ", ".join(filter(None, (example, f"{name}={low:g}..{high:g}"))))
            try:
                read_space(part, 0.1)
            except TikhonError:
                continue
            return part
    return as_shown(listing)


def as_shown(listing: Listing) -> str:
    """A method as a recipe of the command line, with the arguments of its card's example."""
    return example(listing.name)


def _call(listing: Listing, arguments: str) -> str:
    return f"{listing.name}({arguments})" if arguments else listing.name


def space_of(chosen: Sequence[Option]) -> str:
    """All of them optional; those that cannot be in one recipe are alternatives."""
    groups: list[list[Option]] = []
    for option in chosen:
        rivals = [group for group in groups if any(not _together(option, other) for other in group)]
        if not rivals:
            groups.append([option])
        elif len(rivals) == 1:
            rivals[0].append(option)
    return " + ".join(f"({' | '.join(option.part for option in group)})?" for group in groups)


def _together(one: Option, other: Option) -> bool:
    both = "+".join(next(read_space(option.part, 0.1).every())[1].recipe for option in (one, other))
    try:
        Recipe(*parse_arm(both).methods())
    except TikhonError:
        return False
    return True
