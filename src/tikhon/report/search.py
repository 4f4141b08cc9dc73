"""Search the catalogue by what a question means: word and character statistics, latent semantics and a glossary.

How often an expected entry is among the first five, of the questions in tests/report/search_questions.json: all 30
that were looked at while the search was made, and all 30 that were held out, though whoever wrote them wrote the
glossary too. Of 20 with words that neither text nor glossary had, 8; they have taught the glossary since (18). Of 20
more, written after that and never looked at, 15. Sentence embeddings (all-MiniLM-L6-v2, 80 MB, ten seconds to index)
find 24, 28, 10 and 14 of them by themselves, and 30, 30, 19 and 15 together with this search: not worth that much.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import Normalizer

from tikhon.core.card import PROBLEMS
from tikhon.core.catalogue import Listing, catalogue
from tikhon.core.errors import TikhonError
from tikhon.report.glossary import GLOSSARY, Concept

DIMENSIONS = 64  # of the latent semantics
WORDS, LETTERS, LATENT, TERMS, PROBLEM = 1.0, 0.6, 0.5, 0.8, 0.35
"""How much each kind of likeness counts, the cosine of each being in [0, 1]."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """An entry, how like the question it is, and why: words that both have, phrases and what they mean, problems."""

    key: str
    name: str
    title: str
    year: int
    family: str
    kind: str
    problems: tuple[str, ...]
    score: float
    words: tuple[str, ...]
    meant: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"score": round(self.score, 3), "meant": dict(self.meant)}


@dataclass(frozen=True)
class Text:
    """What an entry says of itself, read from its file without importing it: a search need not wait for torch."""

    listing: Listing
    card: dict[str, Any]
    module: str
    about: str

    @property
    def whole(self) -> str:
        """All of it; what says most of an entry, several times."""
        name = f"{self.listing.name} {re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', self.listing.class_name)}".replace("_", " ")
        problems = " ".join(f"{one} {PROBLEMS[one]}" for one in self.card["problems"])
        often = " ".join([name, self.card["title"], self.module, self.card["helps"]])
        return " ".join([often, often, self.card["claim"], problems, self.about, self.listing.family])


def read(listing: Listing) -> Text:
    """The text of an entry. Sentences that say where not to use it are left out: they name what it is not for."""
    tree = ast.parse(listing.path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    call = next(node.value for node in nodes if isinstance(node.targets[0], ast.Name) and node.targets[0].id == "card")
    assert isinstance(call, ast.Call)
    card = {"problems": (), "kind": "method"} | {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    kinds = (ast.ClassDef, ast.FunctionDef)
    main = [node for node in tree.body if isinstance(node, kinds) and node.name == listing.class_name]
    about = inspect.cleandoc(ast.get_docstring(main[0]) or "") if main else ""
    prose = [part for part in about.split("\n\n") if not part.startswith((" ", ">>>"))]
    sentences = re.split(r"(?<=[.:;])\s+", " ".join(prose))
    kept = [one for one in sentences if not re.match(r"(Not|nor|Cost|Reference)\b", one)]
    return Text(listing, card, ast.get_docstring(tree) or "", " ".join(kept))


_ENDINGS = re.compile(r"(?<=\w{3})(ations?|ing|ers?|ed|es|(?<!s)s|e|ly)$")


def stem(word: str) -> str:
    """A word without the commonest endings, in lower case and British: near enough to compare words by.

    >>> [stem(word) for word in ("Memorizing", "memorises", "classes", "class")]
    ['memori', 'memori', 'class', 'class']
    """
    british = re.sub(r"iz(?=e|ing|ation)", "is", word.lower())
    return _ENDINGS.sub("", _ENDINGS.sub("", british))


def stems(text: str) -> dict[str, str]:
    """The words of a text by their stems, without stop words.

    >>> stems("The classes may be wrong")
    {'class': 'classes', 'wrong': 'wrong'}
    """
    words = [word for word in _words(text) if len(word) > 1 and word not in ENGLISH_STOP_WORDS]
    return {stem(word): word for word in words}


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _grams(text: str) -> list[str]:
    """Stems, and pairs of neighbours."""
    found = [stem(word) for word in _words(text) if len(word) > 1 and word not in ENGLISH_STOP_WORDS]
    return found + [" ".join(pair) for pair in pairwise(found)]


class Index:
    """The catalogue as vectors."""

    def __init__(self, texts: list[Text]) -> None:
        self.texts = texts
        wholes = [text.whole for text in texts]
        self._words = TfidfVectorizer(analyzer=_grams, sublinear_tf=True)
        self._letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2)
        size = min(DIMENSIONS, len(texts) - 1)
        both = FeatureUnion([("words", self._words), ("letters", self._letters)])
        self._latent = make_pipeline(both, TruncatedSVD(size, random_state=0), Normalizer(copy=False))
        self._in_latent: Floats = self._latent.fit_transform(wholes)
        self._rarity = dict(zip(self._words.get_feature_names_out(), self._words.idf_, strict=True))
        self._in_words, self._in_letters = self._words.transform(wholes), self._letters.transform(wholes)
        self._problems = np.array([[one in text.card["problems"] for one in PROBLEMS] for text in texts], dtype=float)

    def search(self, question: str, limit: int = 10) -> list[Found]:
        """The entries that are most like a question, best first; none where nothing is like it at all."""
        concepts = meanings(question)
        meant = " ".join(concept.terms for concept, _ in concepts)
        problems = np.array([any(concept.problem == one for concept, _ in concepts) for one in PROBLEMS], dtype=float)
        vector = self._words.transform([question])
        scores = WORDS * self._cosines(vector) + TERMS * self._cosines(self._words.transform([meant]))
        scores += LETTERS * (self._in_letters @ self._letters.transform([question]).T).toarray().ravel()
        scores += LATENT * np.clip(self._in_latent @ self._latent.transform([f"{question} {meant}"])[0], 0.0, None)
        scores += PROBLEM * self._problems @ problems / max(1.0, problems.sum())
        best = np.argsort(-scores, kind="stable")[:limit]
        return [self._found(int(one), float(scores[one]), question, concepts) for one in best if scores[one] > 0]

    def _cosines(self, vector: Any) -> Floats:
        found: Floats = (self._in_words @ vector.T).toarray().ravel()
        return found

    def _found(self, number: int, score: float, question: str, concepts: list[tuple[Concept, str]]) -> Found:
        text = self.texts[number]
        own, asked = stems(text.whole), stems(question)
        rare = sorted(own.keys() & asked.keys(), key=lambda one: -self._rarity[one])
        meant = [
            (phrase, f"{concept.problem} ({PROBLEMS[concept.problem]})" if concept.problem else concept.terms)
            for concept, phrase in concepts
            if concept.problem in text.card["problems"]
            or (not concept.problem and len(own.keys() & stems(concept.terms).keys()) > 1)
        ]
        card, listing = text.card, text.listing
        return Found(
            listing.name, listing.class_name, card["title"], card["year"], listing.family, card["kind"],
            tuple(card["problems"]), score, tuple(asked[one] for one in rare[:5]), tuple(meant),
        )  # fmt: skip


def meanings(question: str) -> list[tuple[Concept, str]]:
    """The concepts of the glossary that a question speaks of, each with the words that say so.

    >>> [(concept.problem, words) for concept, words in meanings("The network is too sure of itself.")]
    [('calibration', 'too sure')]
    """
    words = {stem(word): word for word in _words(question)}
    found = []
    for concept in GLOSSARY:
        for phrase in concept.phrases:
            said = [
                next((words[one] for one in map(stem, part.split("|")) if one in words), "") for part in phrase.split()
            ]
            if all(said):
                found.append((concept, " ".join(dict.fromkeys(said))))
                break
    return found


@lru_cache
def index() -> Index:
    """Of the whole catalogue, made once: a second on one core."""
    return Index([read(listing) for listing in catalogue().values()])


def search(question: str, limit: int = 10) -> list[Found]:
    """Entries of the catalogue for a question in plain language, best first."""
    if not stems(question) and not meanings(question):
        raise TikhonError('Ask in a few words, as in tikhon search "half my labels may be wrong".')
    if limit < 1:
        raise TikhonError(f"limit must be at least 1, not {limit}.")
    return index().search(question, limit)
