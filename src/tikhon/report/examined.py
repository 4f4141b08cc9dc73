"""What an examination gives: checks with their numbers, findings with the methods against them, and what is drawn."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tikhon.measures.calibration import PlainReliability
from tikhon.report.checks import Check
from tikhon.report.checkup_text import text
from tikhon.report.readings import Reading


@dataclass(frozen=True)
class Remedy:
    """A method that addresses a finding: its name, what is stored of it, and the recipe to paste."""

    method: str
    evidence: str
    recipe: str


@dataclass(frozen=True)
class Examined:
    """A check that was made; weight: 1 at its limit, a finding from there on; remedies: of a finding, best first."""

    name: str
    check: Check
    reading: Reading
    weight: float
    remedies: tuple[Remedy, ...] = ()

    def said(self) -> str:
        """The number with its interval, and the limit."""
        shown = self.check.form.format(self.reading.value)
        low, high, limit = map(self.check.number, (self.reading.low, self.reading.high, self.check.limit))
        return f"{shown} [{low}, {high}], limit {limit}" + (f"; {self.reading.where}" if self.reading.where else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values; None where a number is infinite."""
        reading = self.reading
        numbers = {"value": reading.value, "low": reading.low, "high": reading.high}
        return {
            "check": self.name,
            "problem": self.check.problem or None,
            **{name: one if math.isfinite(one) else None for name, one in numbers.items()},
            "limit": self.check.limit,
            "weight": self.weight,
            "where": reading.where or None,
            "samples": list(reading.samples),
            "why": self.check.why,
            "methods": [{"name": one.method, "evidence": one.evidence, "recipe": one.recipe} for one in self.remedies],
        }


@dataclass(frozen=True)
class Drawn:
    """What the page draws beside the numbers. curves: name -> a list of values by epoch for each training; counts:
    samples of every class in training and test; None where labels are values, or nothing is known of them."""

    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    reliability: PlainReliability | None = None
    counts: tuple[list[int], list[int]] | None = None


@dataclass(frozen=True)
class Checkup:
    """findings: heaviest first; sound: checks within their limits; not_made: why the others could not be made; about:
    what was examined, in words by name. Printed it reads as `tikhon doctor` prints it."""

    findings: tuple[Examined, ...]
    sound: tuple[Examined, ...]
    not_made: dict[str, str]
    about: dict[str, str] = field(default_factory=dict)
    drawn: Drawn = field(default_factory=Drawn)

    def as_dict(self) -> dict[str, Any]:
        return {
            "findings": [one.as_dict() for one in self.findings],
            "sound": [one.as_dict() for one in self.sound],
            "not_made": self.not_made,
        }

    def __str__(self) -> str:
        return text(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as a page, one HTML file that needs nothing but a browser; whole or not at all.

        Errors: TikhonError where `path` is a folder, does not end in .html or cannot be written.
        """
        from tikhon.report.checkup_page import write_checkup  # matplotlib is slow to import

        write_checkup(self, path)
