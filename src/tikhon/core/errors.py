"""The one exception that tikhon raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TikhonError(Exception):
    """What was wrong, where, and what to do about it. Raised before anything was changed."""


class Diverged(TikhonError):
    """A loss became NaN or infinite. A search over settings may count such a run as lost and go on."""


def near_misses(name: str, known: Iterable[str]) -> str:
    """A sentence that helps with a mistyped name: the nearest known ones, or all of them where they are few."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(repr(word) for word in close)}?"
    if len(known) <= 12:
        return f"Known: {', '.join(known)}." if known else "There are none."
    return f"There are {len(known)} to choose from, none of them similar."
