"""The catalogue: every method that the library holds, found by its file."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tikhon.core.errors import TikhonError, near_misses
from tikhon.core.method import Method

METHODS = Path(__file__).parent.parent / "methods"
_CLASS = re.compile(r"^class (\w+)\(Method\)", re.MULTILINE)


@dataclass(frozen=True)
class Listing:
    """Where a method is: its name (the file's), its family (the folder's), its class and its source."""

    name: str
    family: str
    class_name: str
    path: Path

    def load(self) -> type[Method]:
        module = importlib.import_module(f"tikhon.methods.{self.family}.{self.name}")
        kind: type[Method] = getattr(module, self.class_name)
        return kind


@lru_cache
def catalogue() -> dict[str, Listing]:
    """Every method by name. Files are read, not imported: a look at the catalogue costs milliseconds."""
    found = {}
    for path in sorted(METHODS.glob("*/*.py")):
        match = _CLASS.search(path.read_text(encoding="utf-8"))
        if match:
            found[path.stem] = Listing(path.stem, path.parent.name, match.group(1), path)
    return found


@lru_cache
def by_class() -> dict[str, Listing]:
    """Every method by the name of its class."""
    return {listing.class_name: listing for listing in catalogue().values()}


def find(name: str) -> Listing:
    """The method called `name`, by file or by class; a `TikhonError` with near misses where there is none."""
    listing = catalogue().get(name) or by_class().get(name)
    if listing is None:
        raise TikhonError(f"There is no method {name!r}. {near_misses(name, [*catalogue(), *by_class()])}")
    return listing
