"""The examination of `tikhon doctor`: every check made, findings by their weight, and the methods against them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from tikhon.core.catalogue import find
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe
from tikhon.report.checks import CHECKS, Check
from tikhon.report.code import recipe_code
from tikhon.report.patient import Patient
from tikhon.report.readings import Reading
from tikhon.studies.arms import parse_arm
from tikhon.studies.cost import TrainingStep
from tikhon.tuning.candidates import EACH, as_shown, ranked

ROWS = 32
"""Training samples on which a method is tried for whether it fits the model."""


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
        number = self.check.form[self.check.form.index("{") : self.check.form.index("}") + 1]
        low, high, limit = (number.format(one) for one in (self.reading.low, self.reading.high, self.check.limit))
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
class Checkup:
    """findings: heaviest first; sound: checks within their limits; not_made: why the others could not be made."""

    findings: tuple[Examined, ...]
    sound: tuple[Examined, ...]
    not_made: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {
            "findings": [one.as_dict() for one in self.findings],
            "sound": [one.as_dict() for one in self.sound],
            "not_made": self.not_made,
        }


def examine(patient: Patient, checks: Iterable[str] = tuple(CHECKS)) -> Checkup:
    """Make the checks, all by default, and look up what is known to help against what they find.

    Deterministic; model and data stay as they are. Errors: TikhonError where outputs of the model are not finite.
    """
    _ = patient.train_outputs, patient.test_outputs  # a model that has diverged is refused as a whole
    made, not_made = [], {}
    for name in checks:
        check = CHECKS[name]
        try:
            reading = check.read(patient)
        except TikhonError as error:
            not_made[name] = str(error)
        else:
            made.append(Examined(name, check, reading, check.weight(reading)))
    found = sorted((one for one in made if one.weight >= 1.0), key=lambda one: -one.weight)
    findings = tuple(
        Examined(one.name, one.check, one.reading, one.weight, _remedies(one.check.problem, patient)) for one in found
    )
    return Checkup(findings, tuple(one for one in made if one.weight < 1.0), not_made)


def _remedies(problem: str, patient: Patient) -> tuple[Remedy, ...]:
    """The best founded methods against a problem that train this model."""
    chosen: list[Remedy] = []
    for name, evidence in ranked(problem, patient.kind) if problem else ():
        recipe = as_shown(find(name))
        if _trains(recipe, patient):
            chosen.append(Remedy(name, evidence, recipe_code(recipe, patient.kind)))
        if len(chosen) == EACH:
            break
    return tuple(chosen)


def _trains(recipe: str, patient: Patient) -> bool:
    """Whether a copy of the model takes a step with it."""
    inputs, labels = (one[:ROWS].to(patient.device) for one in patient.train)
    base = F.cross_entropy if patient.kind == "classes" else F.mse_loss
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            made = Recipe(*parse_arm(recipe).methods(), base=base)
            model = copy.deepcopy(patient.model).requires_grad_(True)
            TrainingStep(made, model, inputs, labels, lambda parameters: torch.optim.SGD(parameters, lr=1e-3))()
        except TikhonError:
            return False
    return True
