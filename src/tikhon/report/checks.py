"""The checks of `tikhon doctor`: what each reads, beyond which number it is a finding, and why that matters.

A reading is a finding where the nearer end of its interval is beyond the limit, and weighs as much as that end is
further from what is sound than the limit is. How often they find what is wrong, and how often something that is not, is
measured in tests/report/test_checkup.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tikhon.report import history, readings
from tikhon.report.patient import Patient
from tikhon.report.readings import Reading


@dataclass(frozen=True)
class Check:
    """read: raises TikhonError where it cannot be made; problem: of the catalogue, "" where only the data or the
    training can be mended; sound, limit: what the number is where all is well, and beyond which it is a finding; form:
    how it is printed; why: what it means and what to do first."""

    read: Callable[[Patient], Reading]
    problem: str
    sound: float
    limit: float
    form: str
    why: str

    def number(self, value: float) -> str:
        """A number as it is printed, without words."""
        return self.form[self.form.index("{") : self.form.index("}") + 1].format(value)

    def weight(self, reading: Reading) -> float:
        """How far the nearer end is from sound, in units of the limit's distance; ratios by their logarithms."""
        scale = math.log if self.sound == 1.0 else float
        return (scale(reading.low) - scale(self.sound)) / (scale(self.limit) - scale(self.sound))


CHECKS = {
    "duplicates": Check(
        readings.duplicates,
        "",
        0.0,
        0.01,
        "{:.1%} of test samples",
        "Test samples are in the training set too, so that the test flatters. Take them out of either, and test again "
        "before anything else.",
    ),
    "wrong labels": Check(
        readings.wrong_labels,
        "noisy-labels",
        0.0,
        0.05,
        "{:.1%} of training labels",
        "Two unlike classifiers that have not seen a sample agree with each other and not with its label. A model that "
        "is trained for long learns such labels by heart. Classes that overlap by nature look the same: read some.",
    ),
    "over-fitting": Check(
        readings.overfitting,
        "overfitting",
        0.0,
        0.05,
        "a gap of {:.3f}",
        "The model is better on training than on test data by this much (accuracy; of values R squared). More data, "
        "early stopping and regularisation close it.",
    ),
    "imbalance": Check(
        readings.imbalance,
        "imbalance",
        1.0,
        10.0,
        "{:.1f} : 1",
        "The most frequent class has so many samples for each of the rarest, which a plain loss may give up. Look at "
        "the accuracy of each class.",
    ),
    "over-confidence": Check(
        readings.over_confidence,
        "calibration",
        0.0,
        0.05,
        "{:.1%} too sure",
        "The mean confidence on test data is above the accuracy by this much: probabilities cannot be relied on.",
    ),
    "softmax collapse": Check(
        readings.collapse,
        "stability",
        0.0,
        0.5,
        "{:.1%} of losses are 0",
        "Logits have grown until the loss of these training samples rounds to exactly 0: they teach nothing more. "
        "Lower the learning rate, or decay the weights of the last layer.",
    ),
    "dead units": Check(
        readings.dead_units,
        "",
        0.0,
        0.25,
        "{:.1%} of units",
        "These units are 0 for every training sample, get no gradient and do not come back. Train again with a lower "
        "learning rate, a warm-up or a leaky activation; to keep the model, prune them, which costs nothing.",
    ),
    "shift": Check(
        readings.shift,
        "shift",
        0.5,
        0.6,
        "AUC {:.3f}",
        "A classifier tells test from training inputs, so that they come from different distributions. Find out in "
        "what they differ (tikhon.feature_shift) before choosing a remedy; methods that take inputs like those of the "
        "test need no labels for them.",
    ),
    "past its best": Check(
        history.past_best,
        "overfitting",
        0.0,
        0.02,
        "a fall of {:.3f}",
        "The metric on held-out data was higher earlier in training (accuracy; of values R squared). Keep the best "
        "epoch: tikhon.EarlyStopping in your own loop, keep_best in tikhon.fit.",
    ),
    "unfinished": Check(
        history.still_rising,
        "",
        0.0,
        0.02,
        "a rise of {:.3f}",
        "The metric on held-out data still rises where training ends. Train for longer before judging anything else.",
    ),
}
"""By name, in the order in which they are made."""
