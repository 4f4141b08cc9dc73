"""What the catalogue knows of a method, as plain values: for tables, for pages and for machines."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tikhon.core.catalogue import Listing
from tikhon.core.method import MOMENTS, Method
from tikhon.studies.evidence import Evidence, load_evidence


def describe(listing: Listing) -> dict[str, Any]:
    """One row of `tikhon list --json`: where the method comes from and what its study found, in short."""
    card = listing.card
    return {
        "name": listing.class_name,
        "key": listing.name,
        "title": card.title,
        "year": card.year,
        "arxiv": card.arxiv,
        "family": listing.family,
        "kind": card.kind,
        "problems": list(card.problems),
        "evidence": _brief(load_evidence(listing)),
    }


def details(listing: Listing) -> dict[str, Any]:
    """Everything that `tikhon show` says of a method."""
    evidence, card = load_evidence(listing), listing.card
    return describe(listing) | {
        "authors": card.authors,
        "formula": card.formula,
        "claim": card.claim,
        "helps": card.helps,
        "hurts": card.hurts,
        "cost": card.cost,
        "neutral": card.neutral,
        "arguments": arguments(listing.load()),
        **_in_training(listing),
        "example": example(listing),
        "evidence": _brief(None) if evidence is None else asdict(evidence),
    }


def _in_training(listing: Listing) -> dict[str, Any]:
    """How a method acts in training; an entry of another kind does not."""
    if not listing.is_method:
        return {"needs": [], "breaks": [], "moments": [], "exempt": {}}
    kind: type[Method] = listing.load()
    return {
        "needs": sorted(kind.needs),
        "breaks": sorted(kind.breaks),
        "moments": moments(kind),
        "exempt": dict(kind.exempt),
    }


def moments(kind: type[Method]) -> list[dict[str, str]]:
    """In which moments a method acts, with its slot ("" where the moment has none) and what the moment is for."""
    return [
        {"moment": moment, "slot": kind.slots.get(moment, ""), "about": about_moment(moment)}
        for moment in MOMENTS
        if moment != "check" and getattr(kind, moment) is not getattr(Method, moment)
    ]


def about_moment(moment: str) -> str:
    """The first sentence that `Method` says of a moment."""
    text = " ".join((inspect.getdoc(getattr(Method, moment)) or "").split())
    return re.split(r"(?<=[.;:]) ", text)[0].rstrip(".;:") + "."


def arguments(kind: Callable[..., Any]) -> list[dict[str, str]]:
    """Arguments of a class or function: name, type, default ("" where it must be given) and what the docstring says."""
    anything = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = [one for one in inspect.signature(kind).parameters.values() if one.kind not in anything]
    said = _said_of_arguments(inspect.getdoc(kind) or "", [one.name for one in found])
    return [
        {
            "name": one.name,
            "type": one.annotation if isinstance(one.annotation, str) else inspect.formatannotation(one.annotation),
            "default": "" if one.default is inspect.Parameter.empty else repr(one.default),
            "about": said.get(one.name, ""),
        }
        for one in found
    ]


def _said_of_arguments(text: str, names: list[str]) -> dict[str, str]:
    """Read `strength: weight of the term; low, high: its bounds.`, the way in which our docstrings name arguments.

    What is said of one ends with its sentence.
    """
    if not names:
        return {}
    name = rf"(?:{'|'.join(map(re.escape, names))})"
    heading = re.compile(rf"(?:^|(?<=[;.,] ))({name}(?:(?:, | and ){name})*): ")
    said: dict[str, str] = {}
    for paragraph in text.split("\n\n"):
        parts = heading.split(" ".join(paragraph.split()))
        for heads, about in zip(parts[1::2], parts[2::2], strict=True):
            sentence = re.split(r"\. (?=[A-Z`])", about.strip())[0].rstrip(";.,")
            said |= dict.fromkeys(re.split(r", | and ", heads), sentence)
    return said


def example(listing: Listing) -> str:
    """A training loop with the method, to paste where `model`, `train` (a data set) and `epochs` are known.

    For what does not classify of its own accord, or is no method: the example of its docstring.
    """
    kind = listing.load()
    if not listing.classifies:
        found = doctest.DocTestParser().get_examples(inspect.getdoc(kind) or "")
        source = "".join(one.source for one in found)
        return source if source.startswith("import ") else "import torch, tikhon\n\n" + source
    ids = "ids" in kind.needs
    data, batch, index = ("tk.data.indexed(train)", "index, x, y", ", index=index") if ids else ("train", "x, y", "")
    samples = ", samples=len(train)" if ids else ""
    return f"""\
import torch
from torch.utils.data import DataLoader
import tikhon as tk

recipe = tk.Recipe(tk.{listing.class_name}({kind.card.example}))
model = recipe.prepare(model{samples})
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
recipe.attach(optimizer, epochs=epochs)

loader = DataLoader({data}, batch_size=128, shuffle=True)
for epoch in range(epochs):
    for {batch} in loader:
        optimizer.zero_grad()
        recipe.loss(x, y{index}).backward()
        optimizer.step()
    recipe.end_epoch()
model = recipe.export()
"""


def _brief(evidence: Evidence | None) -> dict[str, Any]:
    if evidence is None:
        return {"status": "none"}
    return {
        "status": evidence.status,
        "question": evidence.question,
        "setting": evidence.setting,
        "seeds": len(evidence.seeds),
        "findings": [asdict(finding) for finding in evidence.findings],
    }
