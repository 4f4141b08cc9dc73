"""What `tikhon doctor` reads off a patient: one number with an interval that covers 95% for each check."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.statistics import share_interval
from tikhon.measures.bootstrap import bootstrap_interval
from tikhon.measures.dead_units import unit_use
from tikhon.measures.duplicates import exact_duplicates, near_duplicates
from tikhon.measures.generalisation import generalisation_gap
from tikhon.measures.imbalance import class_counts, imbalance_ratio
from tikhon.measures.logits import collapsed_share, overconfidence
from tikhon.measures.samples import checked_samples
from tikhon.measures.shift import classifier_two_sample
from tikhon.report.patient import Data, Patient, some
from tikhon.tuning.findings import suspected_noise

FOLDS, NEIGHBOURS = 5, 10
MOST = 2000
"""Samples of a set that costly checks look at: as many at random where there are more."""
RESAMPLES = 500
FEWEST = 30
"""Samples below which a bootstrap says nothing."""

VALUES = "The labels are values, not classes."


@dataclass(frozen=True)
class Reading:
    """value with low and high, its interval; where: to what it belongs, "" for the whole; samples: places of those that
    it speaks of."""

    value: float
    low: float
    high: float
    where: str = ""
    samples: tuple[int, ...] = ()


def duplicates(patient: Data) -> Reading:
    """The share of test samples that are in the training set, to the bit or nearly."""
    place = some(len(patient.test[0]), MOST, "duplicates")
    train, test = patient.train[0].cpu(), patient.test[0].cpu()[place]
    try:
        _refuse_codes(train)
        found: Tensor = near_duplicates(train, test).pairs
    except TikhonError:  # where distances say nothing, being the same still does
        found = exact_duplicates(train, test).pairs
    return Reading(*share_interval(len(found), len(place)), samples=tuple(place[found[:, 0]].tolist()))


def wrong_labels(patient: Data) -> Reading:
    """The share of training labels that two classifiers of different kinds, which have not seen them, speak against."""
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = _labels(patient)
    drawn = some(len(labels), MOST, "wrong labels")
    place = drawn[torch.bincount(labels[drawn])[labels[drawn]] >= FOLDS]  # of rarer classes no fold has an idea
    _refuse_few(len(place))
    y = labels[place]
    if len(y.unique()) < 2:
        raise TikhonError(f"Two classes with {FOLDS} samples each are needed.")
    x = _numbers(patient.train[0][place.to(patient.train[0].device)]).numpy()
    kinds = (KNeighborsClassifier(NEIGHBOURS), LogisticRegression(C=0.01, max_iter=500))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    one, other = (
        torch.from_numpy(cross_val_predict(make_pipeline(StandardScaler(), kind), x, y.numpy(), cv=folds))
        for kind in kinds
    )
    doubted = place[(one == other) & (one != y)]
    found = bootstrap_interval(suspected_noise, one, other, y, resamples=RESAMPLES)
    return Reading(*found, samples=tuple(doubted.tolist()))


def overfitting(patient: Patient) -> Reading:
    """How much worse the model is on test data: accuracy, or squared errors in units of the labels' variance."""
    (_, labels), (_, test_labels) = patient.train, patient.test
    if patient.kind == "classes":
        right, test_right = (
            outputs.argmax(1) == found.cpu()
            for outputs, found in ((patient.train_outputs, labels), (patient.test_outputs, test_labels))
        )
        return read(generalisation_gap(right, test_right).gap)
    unit = labels.cpu().double().var(0).mean()
    if not unit > 0:
        raise TikhonError("The training labels are all the same.")
    errors, test_errors = (
        (outputs.double() - found.cpu().double()).square().reshape(len(found), -1).mean(1) / unit
        for outputs, found in ((patient.train_outputs, labels), (patient.test_outputs, test_labels))
    )
    return read(generalisation_gap(errors, test_errors).gap)


def imbalance(patient: Data) -> Reading:
    """Training samples of the most frequent class for each of the rarest, of those that occur in training or test."""
    labels = _labels(patient)
    classes = torch.cat([labels, patient.test[1].cpu().long()]).unique()
    counts = class_counts(labels, int(classes.max()) + 1)[classes]
    if len(counts) < 2:
        raise TikhonError("There is one class only.")
    most, least = int(counts.max()), int(counts.min())
    _, low, high = share_interval(most, most + least)
    rarest = f"class {int(classes[counts.argmin()])}, {least} samples"
    return Reading(imbalance_ratio(counts), max(1.0, _odds(low)), _odds(high) if least else math.inf, rarest)


def over_confidence(patient: Patient) -> Reading:
    """Mean confidence on test data less the accuracy there."""
    labels = _labels(patient, of_test=True)
    _refuse_few(len(labels))
    return Reading(*bootstrap_interval(overconfidence, patient.test_outputs, labels, resamples=RESAMPLES))


def collapse(patient: Patient) -> Reading:
    """The share of training samples whose loss has become exactly 0."""
    labels = _labels(patient)
    share = float(collapsed_share(patient.train_outputs, labels))
    return Reading(*share_interval(round(share * len(labels)), len(labels)))


def dead_units(patient: Patient) -> Reading:
    """The share of units that are 0 for every training sample, in the layer that has most of them for sure.

    The interval takes the units of a layer for draws of the training: a few of few units are no finding.
    """
    dead = unit_use(patient.model, patient.train[0].to(patient.device)).dead
    readings = [Reading(*share_interval(int(one.sum()), len(one)), where=f"layer {name}") for name, one in dead.items()]
    return max(readings, key=lambda reading: reading.low)


def shift(patient: Data) -> Reading:
    """How often a classifier that has not seen them puts a test sample above a training sample."""
    train, test = (
        _numbers(inputs[some(len(inputs), MOST, "shift").to(inputs.device)])
        for inputs in (patient.train[0], patient.test[0])
    )
    return Reading(*classifier_two_sample(train, test, "forest").auc)


def _numbers(inputs: Tensor) -> Tensor:
    """Inputs as rows of finite numbers."""
    _refuse_codes(inputs)
    return checked_samples(inputs, inputs)[0]


def _refuse_codes(inputs: Tensor) -> None:
    if not inputs.is_floating_point():
        raise TikhonError(f"The inputs are {inputs.dtype}: codes, which do not compare as numbers.")


def _labels(patient: Data, of_test: bool = False) -> Tensor:
    """Class indices on the CPU."""
    if patient.kind != "classes":
        raise TikhonError(VALUES)
    return (patient.test if of_test else patient.train)[1].cpu().long()


def _refuse_few(samples: int) -> None:
    if samples < FEWEST:
        raise TikhonError(f"There are {samples} samples; an interval takes {FEWEST}.")


def read(estimate: tuple[float, float | None, float | None]) -> Reading:
    """An estimate that has an interval."""
    value, low, high = estimate
    assert low is not None  # of two samples or more
    assert high is not None
    return Reading(value, low, high)


def _odds(share: float) -> float:
    return share / (1.0 - share)
