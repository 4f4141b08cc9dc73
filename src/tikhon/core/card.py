"""Cards: where a method comes from, what it claims, and when it hurts."""

from __future__ import annotations

from dataclasses import dataclass

PROBLEMS = {
    "overfitting": "the training score is far better than the test score",
    "noisy-labels": "some training labels are wrong",
    "calibration": "the model is more confident than it is right",
    "forgetting": "learning something new erases something old",
    "shift": "test data differ from training data",
    "robustness": "small changes of the input change the answer",
    "compression": "the model is too large or too slow",
    "speed": "training takes too long",
    "stability": "training diverges or depends on luck",
    "privacy": "the model must not reveal or must forget training data",
    "imbalance": "some classes are rare",
}
"""The problems that a card may address, with what the user sees."""


@dataclass(frozen=True)
class Card:
    """Where a method comes from and what is said of it. Strings are one or two plain sentences."""

    title: str
    year: int
    arxiv: str
    problems: tuple[str, ...]
    formula: str
    claim: str
    helps: str
    hurts: str
    cost: str
    neutral: str = "strength=0"
    """The arguments under which training is plain, to the bit; "" where there are none."""
    authors: str = ""
    kind: str = "method"
    """method, solver, measure, block, decision rule, study, tuner."""
    example: str = ""
    """Arguments for the catalogue's example where the defaults do not suffice, as in `k=32`."""
