"""The test-time shift that a user asks for, as `kind` or `kind:strength`.

rotation:DEGREES   images, counter-clockwise (30)
blur:SIGMA         images and signals, in pixels or points (1)
noise:SCALE        any inputs, in standard deviations of the training inputs (0.5): of all of them together for images
                   and signals, of each feature for tables, whose columns have units of their own
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.data import corruptions
from tikhon.data.names import unknown

DEFAULTS = {"rotation": 30.0, "noise": 0.5, "blur": 1.0}
SHIFTS = tuple(DEFAULTS)
# What each shift makes sense for, by the number of dimensions of one sample.
FITS = {"rotation": (3,), "blur": (2, 3), "noise": (1, 2, 3)}
FORMS = {1: "tables", 2: "1-D signals", 3: "images"}


class Shift(NamedTuple):
    """One of SHIFTS and how strong."""

    kind: str
    strength: float


def parse_shift(text: str) -> Shift:
    """`rotation`, `rotation:30`, `noise:0.5`, ... -> Shift; TikhonError if it is none of these."""
    kind, colon, number = text.partition(":")
    if kind not in DEFAULTS:
        raise unknown("shift", kind, DEFAULTS)
    try:
        strength = float(number) if colon else DEFAULTS[kind]
    except ValueError:
        raise TikhonError(
            f"shift {text!r}: {number!r} is not a number; write for example {kind}:{DEFAULTS[kind]:g}"
        ) from None
    if not math.isfinite(strength) or (kind != "rotation" and strength <= 0):
        raise TikhonError(f"shift {text!r}: the strength must be finite{'' if kind == 'rotation' else ' and positive'}")
    return Shift(kind, strength)


def refuse_unfit(shift: Shift, input_shape: tuple[int, ...]) -> None:
    """TikhonError if inputs of this shape (one sample) cannot shift like that."""
    if len(input_shape) not in FITS[shift.kind]:
        possible = [kind for kind, dimensions in FITS.items() if len(input_shape) in dimensions]
        forms = " and ".join(FORMS[dimensions] for dimensions in FITS[shift.kind])
        raise TikhonError(
            f"the shift {shift.kind!r} makes sense for {forms}, not for inputs of shape {input_shape}; "
            f"possible here: {', '.join(possible) or 'none'}"
        )


def apply_shift(shift: Shift, inputs: Tensor, train_inputs: Tensor, generator: torch.Generator) -> Tensor:
    """The shifted inputs, of the same shape. The training inputs only set the unit of the noise."""
    if shift.kind == "rotation":
        return corruptions.rotate(inputs, shift.strength)
    if shift.kind == "blur":
        return corruptions.blur(inputs, shift.strength)
    unit = train_inputs.std(0) if train_inputs.ndim == 2 else train_inputs.std()
    return corruptions.gaussian_noise(inputs, shift.strength * unit, generator)
