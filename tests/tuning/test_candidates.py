"""Which methods are tried: those that address the problem, by the evidence that is stored of them."""

from __future__ import annotations

import pytest

from tikhon.core.card import PROBLEMS
from tikhon.core.catalogue import find, methods
from tikhon.studies.arms import parse_arm
from tikhon.studies.evidence import load_evidence
from tikhon.studies.survey import Rows, arms, find_survey, standings
from tikhon.tuning.candidates import ALL, EACH, Option, as_shown, options, part_of_space, ranked, space_of
from tikhon.tuning.findings import Finding
from tikhon.tuning.space import read_space


@pytest.mark.parametrize("problem", ["noisy-labels", "overfitting", "calibration", "imbalance"])
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_what_is_ranked_addresses_the_problem_and_has_evidence(problem: str, kind: str) -> None:
    found = ranked(problem, kind)
    assert kind == "values" or found
    for name, said in found:
        listing = find(name)
        assert problem in listing.card.problems
        assert said.startswith("survey: ") or load_evidence(listing).status in ("replayed", "partly")
        assert kind == "values" or listing.classifies
    statuses = ["in part" in said for _, said in found if not said.startswith("survey: ")]
    assert statuses == sorted(statuses)


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_what_needs_data_of_other_domains_is_surveyed_and_not_suggested(kind: str) -> None:
    assert "irm" in arms(find_survey("shift"))
    for name, _ in ranked("shift", kind):
        parse_arm(as_shown(find(name)))


def test_a_survey_decides_before_studies() -> None:
    survey = find_survey("noisy-labels")
    rows = Rows(survey)
    gains: dict[str, list[float]] = {}
    for course in survey.courses:
        for one in standings(survey, rows.of(course)):
            gains.setdefault(one.arm, []).append(one.difference)
    means = {name: sum(seen) / len(seen) for name, seen in gains.items() if name != "none"}
    expected = [name for name in sorted(means, key=means.__getitem__, reverse=True) if means[name] > 0]
    surveyed = [name for name, said in ranked("noisy-labels", "classes") if said.startswith("survey: ")]
    assert surveyed == [name for name in expected if find(name).classifies]
    assert not {name for name, _ in ranked("noisy-labels", "classes")} & {name for name in means if means[name] <= 0}


def test_as_many_as_there_is_time_for_and_none_that_cannot_train() -> None:
    found = [Finding(problem, "") for problem in ("noisy-labels", "overfitting", "calibration", "imbalance")]
    chosen = options(found, "classes")
    assert len(chosen) <= ALL
    assert all(sum(one.problem == problem for one in chosen) <= EACH for problem in PROBLEMS)
    assert len({one.name for one in chosen}) == len(chosen)
    refused = chosen[0].name
    others = options(found, "classes", lambda recipe: not recipe.startswith(refused))
    assert refused not in {one.name for one in others}
    assert len(others) == len(chosen)


def test_every_method_of_the_catalogue_has_a_part_that_is_a_space() -> None:
    for listing in methods().values():
        if listing.classifies:
            space = read_space(part_of_space(listing), 0.1)
            assert space.methods == [listing.name]
    assert part_of_space(find("elr")) == "elr(strength=0.3..30)"
    assert part_of_space(find("gce")) == "gce(q=0.07..0.97)"


def test_rivals_are_alternatives() -> None:
    parts = [Option(name, "overfitting", "", name) for name in ("sam", "mixup", "asam", "l2")]
    assert space_of(parts) == "(sam | asam)? + (mixup)? + (l2)?"
