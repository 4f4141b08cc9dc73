"""The examination of `tikhon doctor`: every check made, findings by their weight, and the methods against them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.catalogue import Listing, find
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe
from tikhon.measures.calibration import PlainReliability, reliability
from tikhon.measures.imbalance import class_counts
from tikhon.report.checks import CHECKS
from tikhon.report.code import recipe_code
from tikhon.report.curves import Curves
from tikhon.report.examined import Checkup, Drawn, Examined, Remedy
from tikhon.report.patient import Data, Patient, device_of
from tikhon.report.readings import Reading
from tikhon.studies.arms import parse_arm
from tikhon.studies.cost import TrainingStep
from tikhon.tuning.candidates import EACH, as_shown, needs_unlabelled, ranked

__all__ = ["examine", "Checkup", "Examined"]

ROWS = 32
"""Training samples on which a method is tried for whether it fits the model."""

Remedies = Callable[[str], tuple[Remedy, ...]]
"""Problem -> the methods against it."""


def examine(patient: Patient, checks: Iterable[str] = tuple(CHECKS)) -> Checkup:
    """Make the checks, all by default, and look up what is known to help against what they find.

    Deterministic; model and data stay as they are. Errors: TikhonError where outputs of the model are not finite.

    >>> inputs = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> patient = Patient(nn.Linear(3, 2), (inputs[:30], torch.arange(30) % 2), (inputs[30:], torch.arange(30) % 2))
    >>> print(examine(patient, ["duplicates", "imbalance"]).findings)
    ()
    """
    _ = patient.train_outputs, patient.test_outputs  # a model that has diverged is refused as a whole
    made, not_made = readings_of({name: partial(CHECKS[name].read, patient) for name in checks})
    about = {"model": patient.model._get_name(), **described(patient)}
    diagram = None
    if patient.kind == "classes":
        diagram = reliability(patient.test_outputs.float().softmax(1), patient.test[1].cpu()).plain()
    return concluded(
        made, not_made, remedies_for(patient.model, patient), about, drawn(patient, patient.histories, diagram)
    )


def readings_of(reads: Mapping[str, Callable[[], Reading]]) -> tuple[dict[str, Reading], dict[str, str]]:
    """The readings by check, and why others could not be made."""
    made, not_made = {}, {}
    for name, read in reads.items():
        try:
            made[name] = read()
        except TikhonError as error:
            not_made[name] = str(error)
    return made, not_made


def concluded(
    made: Mapping[str, Reading], not_made: dict[str, str], remedies: Remedies, about: dict[str, str], drawn: Drawn
) -> Checkup:
    """Findings by their weight, with the methods against them."""
    every = [Examined(name, CHECKS[name], one, CHECKS[name].weight(one)) for name, one in made.items()]
    found = sorted((one for one in every if one.weight >= 1.0), key=lambda one: -one.weight)
    findings = tuple(
        Examined(one.name, one.check, one.reading, one.weight, remedies(one.check.problem)) for one in found
    )
    return Checkup(findings, tuple(one for one in every if one.weight < 1.0), not_made, about, drawn)


def described(data: Data) -> dict[str, str]:
    """The data in a few words."""
    shape = " x ".join(map(str, data.train[0].shape[1:]))
    return {
        "training samples": str(len(data.train[1])),
        "test samples": str(len(data.test[1])),
        "each": shape,
        "labels": data.kind,
    }


def drawn(data: Data, histories: Sequence[Curves], diagram: PlainReliability | None) -> Drawn:
    """The figures: curves that all trainings have, the diagram, and the samples of every class."""
    names = [name for name in histories[0] if all(name in one for one in histories)] if histories else []
    counts = None
    if data.kind == "classes":
        train, test = (labels.cpu().long() for _, labels in (data.train, data.test))
        classes = int(torch.cat([train, test]).max()) + 1
        counts = class_counts(train, classes).tolist(), class_counts(test, classes).tolist()
    return Drawn({name: [one[name] for one in histories] for name in names}, diagram, counts)


def remedies_for(model: nn.Module, data: Data) -> Remedies:
    """The best founded methods against a problem that train this model on these data."""

    def remedies(problem: str) -> tuple[Remedy, ...]:
        chosen: list[Remedy] = []
        for name, evidence in ranked(problem, data.kind, unlabelled=problem == "shift") if problem else ():
            listing = find(name)
            if _trains(as_shown(listing), model, data):
                recipe = f"{name}(unlabelled=test_inputs)" if needs_unlabelled(listing) else as_shown(listing)
                chosen.append(Remedy(name, evidence, recipe_code(recipe, data.kind)))
            if len(chosen) == EACH:
                break
        return tuple(chosen)

    return remedies


def _trains(recipe: str, model: nn.Module, data: Data) -> bool:
    """Whether a copy of the model takes a step with it."""
    inputs, labels = (one[:ROWS].to(device_of(model, one)) for one in data.train)
    base = F.cross_entropy if data.kind == "classes" else F.mse_loss

    def given(listing: Listing) -> dict[str, Tensor]:
        target_inputs = data.test[0][:ROWS]
        return {"unlabelled": target_inputs.to(inputs.device)} if needs_unlabelled(listing) else {}

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            made = Recipe(*parse_arm(recipe, given).methods(), base=base)
            trained = copy.deepcopy(model).requires_grad_(True)
            TrainingStep(made, trained, inputs, labels, lambda parameters: torch.optim.SGD(parameters, lr=1e-3))()
        except TikhonError:
            return False
    return True
