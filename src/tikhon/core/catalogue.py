"""The catalogue: everything that the library holds, found by its file.

A method is a file of `methods/` with a `Method` in it. A solver, a measure, a block, a tuner, or a study of no single
method is a file of the folder of that name with a `card` and an `__all__` that begins with what the card speaks of.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError, near_misses

PACKAGE = Path(__file__).parent.parent
METHODS = PACKAGE / "methods"
OTHERS = ("blocks", "measures", "solvers", "studies", "tuning")
_METHOD = re.compile(r"^class (\w+)\(Method\)", re.MULTILINE)
_CARD = re.compile(r"^card = Card\(", re.MULTILINE)
_OFFERED = re.compile(r"^__all__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
_ALL = re.compile(r"^__all__ = \[\s*\"(\w+)\"", re.MULTILINE)


@dataclass(frozen=True)
class Listing:
    """Where an entry is: its name (the file's), its family (the folder's), its class or function and its source."""

    name: str
    family: str
    class_name: str
    path: Path
    is_method: bool = True

    @property
    def module(self) -> str:
        """The dotted name of the file."""
        return ".".join(("tikhon", *self.path.relative_to(PACKAGE).with_suffix("").parts))

    @property
    def card(self) -> Card:
        card: Card = self.load().card if self.is_method else importlib.import_module(self.module).card
        return card

    @property
    def classifies(self) -> bool:
        """Whether this method, made with the arguments of its card's example, trains a classifier of its own accord."""
        if not self.is_method or self.load().needs & {"values", "blocks", "dropout"} or "classes" in self.load().breaks:
            return False
        given = inspect.signature(self.load()).parameters.values()
        if self.card.example or any(one.default is inspect.Parameter.empty for one in given):
            return bool(self.card.example)
        try:
            self.load()()
        except TikhonError:  # it asks for one of several arguments, such as domains or unlabelled inputs
            return False
        return True

    def load(self) -> Any:
        """The method's class; of other entries the class or function that the card speaks of."""
        return getattr(importlib.import_module(self.module), self.class_name)


@lru_cache
def catalogue() -> dict[str, Listing]:
    """Every entry by name. Files are read, not imported: a look at the catalogue costs milliseconds."""
    found = dict(methods())
    for path in sorted(path for folder in OTHERS for path in (PACKAGE / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        main = _ALL.search(text)
        if _CARD.search(text) and main:
            found[path.stem] = Listing(path.stem, path.parent.name, main.group(1), path, is_method=False)
    return found


@lru_cache
def methods() -> dict[str, Listing]:
    """The methods of the catalogue: what a recipe takes."""
    found = {}
    for path in sorted(METHODS.glob("*/*.py")):
        match = _METHOD.search(path.read_text(encoding="utf-8"))
        if match:
            found[path.stem] = Listing(path.stem, path.parent.name, match.group(1), path)
    return found


@lru_cache
def by_class() -> dict[str, Listing]:
    """Every entry by the name of its class or function."""
    return {listing.class_name: listing for listing in catalogue().values()}


@lru_cache
def measures() -> dict[str, str]:
    """What the files of `measures/` offer, entries of the catalogue or not: name -> module."""
    found: dict[str, str] = {}
    for path in sorted((PACKAGE / "measures").glob("*.py")):
        offered = _OFFERED.search(path.read_text(encoding="utf-8"))
        names = re.findall(r"\"(\w+)\"", offered.group(1)) if offered else ()
        found |= dict.fromkeys(names, f"tikhon.measures.{path.stem}")
    return found


def find(name: str) -> Listing:
    """The entry called `name`, by file or by class; a `TikhonError` with near misses where there is none."""
    listing = catalogue().get(name) or by_class().get(name)
    if listing is None:
        raise TikhonError(f"There is no method {name!r}. {near_misses(name, [*catalogue(), *by_class()])}")
    return listing
