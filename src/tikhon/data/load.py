"""From a name and a seed to a task: split, thin out, corrupt, in an order that is always the same."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.data import corruptions, splits
from tikhon.data.checks import kind_of, refuse_mismatch
from tikhon.data.names import unknown
from tikhon.data.seeds import torch_generator
from tikhon.data.shift import apply_shift, parse_shift, refuse_unfit
from tikhon.data.sources import Source, load_source
from tikhon.data.task import Split, Task

TEST_SHARE = 0.28  # of everything: 503 of the 1,797 digits
VALIDATION_SHARE = 0.2  # of what is not test
NOISE_KINDS = {"symmetric": corruptions.symmetric_noise, "asymmetric": corruptions.asymmetric_noise}


class _Splits(NamedTuple):
    train: Split
    validation: Split
    test: Split


def load_task(
    source: str,
    *,
    seed: int,
    label_noise: float = 0.0,
    noise_kind: str = "symmetric",
    train_size: int | None = None,
    imbalance: float = 1.0,
    shift: str | None = None,
) -> Task:
    """Load, split and corrupt one task.

    source: a name of `list_tasks()` or the user's `module:function` (see `load_source`).
    seed: decides about the split and every corruption, each by a stream of its own: switching one modifier on does
        not move what another draws.
    label_noise: share of wrong labels in training AND validation (a practitioner's validation labels are as wrong as
        the training labels), never in the test split. For values: standard deviation of Gaussian noise on the
        target, in standard deviations of the clean training target.
    noise_kind: "symmetric" (any other class) or "asymmetric" (the next class); for values there is only one kind.
    train_size: keep so many training samples, every class in its share.
    imbalance: most frequent : least frequent class of the training split, a long tail; 1 leaves it as it is.
    shift: change of the test inputs, `rotation`, `noise` or `blur`, optionally with a strength: `rotation:30`.

    The order is: split; shift of the test inputs; train size, imbalance; standardisation of tables by what is then
    left for training; label noise.
    Errors: TikhonError for unknown names, settings that do not fit the data, and data that cannot be used.
    """
    _refuse_settings(label_noise, noise_kind, train_size)
    wanted_shift = parse_shift(shift) if shift is not None else None
    raw = load_source(source)
    kind, classes = kind_of(raw.train, source)
    for name, other in (("validation", raw.validation), ("test", raw.test)):
        if other is not None:
            refuse_mismatch(raw.train, other, classes, f"{source} ({name})")
    if classes is None and imbalance != 1:
        raise TikhonError(f"imbalance is about classes, and {source} has values to predict; leave it out")
    if classes is None and noise_kind != "symmetric":
        raise TikhonError(f"{noise_kind} label noise is about classes, and {source} has values to predict")
    if wanted_shift is not None:
        refuse_unfit(wanted_shift, tuple(raw.train.inputs.shape[1:]))

    train, validation, test = _split(raw, source, seed)
    changes = []
    if wanted_shift is not None:
        # Before the training split is thinned out and sets other units: a shifted test must not depend on that.
        shifted = apply_shift(wanted_shift, test.inputs, train.inputs, torch_generator(seed, "shift"))
        test = replace(test, inputs=shifted)
        changes.append(f"test {wanted_shift.kind} {wanted_shift.strength:g}")
    if train_size is not None:
        train = _shrink(train, train_size, source, torch_generator(seed, "train size"))
        changes.append(f"{train_size} training samples")
    if imbalance != 1:
        train = train[corruptions.imbalance(train.target, imbalance, torch_generator(seed, "imbalance"))]
        changes.append(f"imbalance {imbalance:g}")
    if raw.standardise:
        train, validation, test = _standardise(_Splits(train, validation, test))
    clean_target = train.target
    if label_noise:
        train = _noisy(train, label_noise, noise_kind, classes, clean_target, torch_generator(seed, "train noise"))
        validation = _noisy(
            validation, label_noise, noise_kind, classes, clean_target, torch_generator(seed, "validation noise")
        )
        changes.append(f"label noise {label_noise:g}" + (f" ({noise_kind})" if classes is not None else ""))
    description = "; ".join([raw.description, *changes])
    return Task(source, kind, classes, train, validation, test, clean_target, description)


def _refuse_settings(label_noise: float, noise_kind: str, train_size: int | None) -> None:
    """What can be refused before anything is loaded."""
    if noise_kind not in NOISE_KINDS:
        raise unknown("noise kind", noise_kind, NOISE_KINDS)
    if not (math.isfinite(label_noise) and label_noise >= 0):
        raise TikhonError(f"label noise must be a finite number from 0 on; got {label_noise}")
    if train_size is not None and train_size < 2:
        raise TikhonError(f"the train size must be at least 2; got {train_size}")


def _split(raw: Source, source: str, seed: int) -> _Splits:
    train, validation, test = raw.train, raw.validation, raw.test
    _refuse_rare(train, 1 + (validation is None) + (test is None), source)
    if test is None:
        test, train = _draw(train, round(TEST_SHARE * len(train)), torch_generator(seed, "test split"))
    if validation is None:
        size = round(VALIDATION_SHARE * len(train))
        validation, train = _draw(train, size, torch_generator(seed, "validation split"))
    return _Splits(train, validation, test)


def _refuse_rare(train: Split, parts: int, source: str) -> None:
    """Every part needs a sample of every class."""
    if train.target.is_floating_point():
        if len(train) < 5:  # below that, a fifth for validation rounds to nothing
            raise TikhonError(f"{source} has {len(train)} samples; splitting them needs at least 5")
        return
    counts = torch.bincount(train.target)
    if counts.min() < parts:
        raise TikhonError(
            f"{source}: class {int(counts.argmin())} has {int(counts.min())} sample(s), but {parts} splits need one "
            "each; leave the class out, or return the splits yourself (keys 'train', 'validation', 'test')"
        )


def _shrink(train: Split, size: int, source: str, generator: torch.Generator) -> Split:
    if size > len(train):
        raise TikhonError(f"train size {size} asked for, but {source} has {len(train)} samples for training")
    return _draw(train, size, generator)[0]


def _draw(split: Split, size: int, generator: torch.Generator) -> tuple[Split, Split]:
    drawn, others = splits.draw(split.target, size, generator)
    return split[drawn], split[others]


def _standardise(parts: _Splits) -> _Splits:
    """Mean 0 and deviation 1 by the training statistics: others would tell the model about the test split."""
    units = _units(parts.train.inputs)
    value_units = _units(parts.train.target) if parts.train.target.is_floating_point() else None
    return _Splits(
        *(
            Split(_in_units(part.inputs, units), _in_units(part.target, value_units) if value_units else part.target)
            for part in parts
        )
    )


def _units(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; a constant column keeps its unit."""
    deviation = values.std(0, correction=0)
    return values.mean(0), torch.where(deviation > 0, deviation, 1.0)


def _in_units(values: Tensor, units: tuple[Tensor, Tensor]) -> Tensor:
    mean, deviation = units
    return (values - mean) / deviation


def _noisy(
    split: Split, amount: float, kind: str, classes: int | None, train_target: Tensor, generator: torch.Generator
) -> Split:
    """The split with wrong labels; values are measured in deviations of the clean training target."""
    if classes is None:
        scale = amount * train_target.std(0, correction=0)
        return replace(split, target=corruptions.value_noise(split.target, scale, generator))
    return replace(split, target=NOISE_KINDS[kind](split.target, amount, classes, generator))
