"""Searching the catalogue: fixed questions, the reasons given, and an index that is made without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tikhon import TikhonError
from tikhon.core.card import PROBLEMS
from tikhon.core.catalogue import catalogue
from tikhon.report import search as searching
from tikhon.report.glossary import GLOSSARY
from tikhon.report.search import index, meanings, read, search, stem, stems

QUESTIONS = json.loads((Path(__file__).parent / "search_questions.json").read_text(encoding="utf-8"))
"""seen: looked at while the search was made; held_out: written at the same time, and looked at once, at the end;
afterwards: written then, in other words, and used to enlarge the glossary; later: written after that. An entry that
comes to the catalogue and answers a question is added to what is expected of it."""


def recall(half: str, among: int = 5) -> float:
    """The share of questions with an expected entry among the first ones."""
    hits = [
        bool({one.key for one in search(question, among)} & set(expected)) for question, expected in QUESTIONS[half]
    ]
    return sum(hits) / len(hits)


@pytest.mark.parametrize(("half", "floor"), [("seen", 0.9), ("held_out", 0.9), ("afterwards", 0.8), ("later", 0.65)])
def test_it_finds_what_is_asked_for_in_plain_words(half: str, floor: float) -> None:
    assert recall(half) >= floor


def test_without_the_glossary_it_would_find_less(monkeypatch: pytest.MonkeyPatch) -> None:
    with_glossary = recall("seen")
    monkeypatch.setattr(searching, "GLOSSARY", ())
    assert recall("seen") < with_glossary


def test_the_questions_name_entries_that_exist() -> None:
    assert [len(part) for part in QUESTIONS.values()] == [30, 30, 20, 20]
    for half in QUESTIONS.values():
        for question, expected in half:
            assert set(expected) <= set(catalogue()), question


def test_it_says_why() -> None:
    found = {one.key: one for one in search("it breaks when the camera changes, and the labels are wrong", 20)}
    assert ("camera changes", f"shift ({PROBLEMS['shift']})") in found["irm"].meant
    assert found["elr"].meant == (("labels wrong", f"noisy-labels ({PROBLEMS['noisy-labels']})"),)
    assert "labels" in found["elr"].words
    assert "camera" not in found["elr"].words
    scores = [one.score for one in found.values()]
    assert scores == sorted(scores, reverse=True)


def test_an_entrys_name_or_title_finds_it_first() -> None:
    for name in ("elr", "sam", "infomec", "hyres"):
        assert search(name)[0].key == name
    assert search("CutMix")[0].key == "cutmix"
    for listing in catalogue().values():
        assert listing.name in [one.key for one in search(listing.card.title, 3)]


def test_what_is_read_of_a_file_is_what_it_says_when_it_is_imported() -> None:
    for listing in catalogue().values():
        text = read(listing)
        assert text.card | {"kind": listing.card.kind} == {
            name: value for name, value in vars(listing.card).items() if name in text.card
        }, listing.name
        assert text.module.split()[0] in (sys.modules[listing.module].__doc__ or "")


def test_a_search_needs_no_torch() -> None:
    code = "import sys; from tikhon.report.search import search; search('wrong labels'); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_sentences_that_say_what_it_is_not_for_do_not_count() -> None:
    text = read(catalogue()["stochastic_depth"])
    assert "Not in" not in text.whole
    assert not any(text.whole.count(word) for word in ("Cost:", "Reference:", ">>>"))


def test_every_concept_of_the_glossary_leads_somewhere() -> None:
    known = set().union(*(stems(text.whole) for text in index().texts))
    for concept in GLOSSARY:
        assert concept.problem in {"", *PROBLEMS}, concept
        assert len(stems(concept.terms).keys() & known) > 1, concept
        for phrase in concept.phrases:
            words = " ".join(part.split("|")[0] for part in phrase.split())
            assert concept in [one for one, _ in meanings(words)], phrase


def test_words_are_compared_by_stem() -> None:
    assert stem("regularization") == stem("regularise") == stem("Regularizing")
    assert stem("class") == stem("classes") != stem("clap")


def test_a_question_like_nothing_finds_nothing_and_none_is_refused() -> None:
    assert search("qqq zzz") == []
    assert len(search("labels", 3)) == 3
    for question in ("", "the of", "?"):
        with pytest.raises(TikhonError, match="Ask in a few words"):
            search(question)
    with pytest.raises(TikhonError, match="at least 1"):
        search("labels", 0)
