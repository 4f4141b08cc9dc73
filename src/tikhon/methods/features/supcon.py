"""Supervised contrastive learning: features near to those of the same class, and far from all others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.features import check_place, place_of, rows_before
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32
from tikhon.math.variational import supervised_contrast


class SupCon(Method):
    """Draw the features of each class together and away from the others, beside the classifier's own loss.

    Use it where labels are few or the features are to serve further tasks. A batch should hold several samples of each
    class; two random views of every sample, with the labels twice, make it so. Not with many classes in small batches,
    where most samples are alone: these have no positive and count as zero. Wrong labels draw wrong samples together.

        loss = task + strength mean_i -1/|P(i)| sum_{p in P(i)} log [exp(z_i z_p / T) / sum_{a != i} exp(z_i z_a / T)]

    z: what goes into the module `at`, with length 1; P(i): the others in the batch of the class of i; T: temperature.

    strength: at least 0, 1; temperature: positive, 0.1; at: by default the last `nn.Linear`, the classifier. The paper
    trains a projector with this loss alone, and the classifier afterwards; here both losses train the features. Its
    code multiplies by T / 0.07, strength=1.43 at T = 0.1. Under mixing a row is of the class that most of it is, and
    probabilities count as the likeliest class.

    Cost: a matrix of the batch's size squared.
    Reference: Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan 2020, arXiv 2004.11362, L_out.

    >>> recipe = tikhon.Recipe(tikhon.SupCon(strength=0.5))
    """

    card = Card(
        title="Supervised Contrastive Learning",
        authors="Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan",
        year=2020,
        arxiv="2004.11362",
        problems=("overfitting", "robustness"),
        formula=r"L = \mathrm{task} - \tfrac{\lambda}{B}\sum_i\tfrac{1}{|P(i)|}\sum_{p\in P(i)}"
        r"\log\frac{e^{z_i z_p/T}}{\sum_{a\ne i}e^{z_i z_a/T}}",
        claim="Classifies better than cross-entropy, and depends less on the choice of optimizer and augmentation.",
        helps="Few labels, and batches that hold several samples of each class.",
        hurts="Many classes in small batches; wrong labels.",
        cost="A matrix of the batch's size squared.",
    )
    needs = frozenset({"classes"})
    exempt = {"accumulation": "samples are compared within a batch"}

    def __init__(self, strength: Strength = 1.0, temperature: Strength = 0.1, at: str | None = None) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.temperature = checked("temperature", temperature, low=1e-3)
        self.at = at

    def check(self, model: nn.Module) -> None:
        check_place(model, self.at, self.key)

    def taps(self, model: nn.Module) -> Sequence[str]:
        return (place_of(model, self.at, self.key),)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        labels = target.dominant
        labels = labels.argmax(1) if labels.is_floating_point() else labels
        if labels.ndim != 1:
            raise TikhonError(f"{self.key} compares one label a sample; these are {tuple(labels.shape)}.")
        features = rows_before(step.tap(place_of(step.model, self.at, self.key)).input, len(output), self.key)
        losses = supervised_contrast(at_least_float32(features), labels, step.value(self.temperature))
        return {"supcon": Term(losses, self.strength)}
