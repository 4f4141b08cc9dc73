"""Intertwined regularisation: a neural field and local matching, each guided by what the other found."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms

Matcher = Callable[[Tensor | None], tuple[Tensor, Tensor]]
"""The other estimator: from the field's predictions (samples, ...), or None at the start, to its own values of that
shape and to (samples,) booleans or weights in [0, 1], how far they are to be trusted."""


def guidance(prediction: Tensor, guide: Tensor, trusted: Tensor) -> Tensor:
    """trusted * mean |prediction - guide| of every sample (Liang et al. 2023, arXiv 2302.14340).

    prediction, guide: (B, ...); trusted: (B,), 1 or 0. Returns (B,), at least 0.

    >>> guidance(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [0.0]]), torch.tensor([1.0, 0.0]))
    tensor([2., 0.])
    """
    return trusted * (prediction - guide).abs().flatten(1).mean(1)


class IntertwinedReg(Method):
    """Pull a field towards another estimate of the same quantity where that is reliable, and restart it from the field.

    Use it where two estimators of one quantity fail in different places: a neural field, smooth and global, and local
    matching (stereo, patch search), exact where there is texture and lost where there is none. Not where both err in
    the same way: they confirm each other.

        loss = task + strength * mean_i m_i |f(x_i) - g_i|,   g, m = matcher(None), then matcher(f) after every round

    matcher: from the predictions of all samples (samples, ...), in the order of their ids, to values g of that shape
    and m (samples,), booleans or weights in [0, 1], all on the CPU; None at the start, before there are predictions.
    `tikhon.math.stereo` has the parts of one. strength: at least 0, 1 as in the official code, where it halves twice
    and m is one minus the error of the colour where stereo is consistent; every: epochs of a round, at least 1, 10:
    three rounds suffice. The prediction of a sample is that of the last step that saw it.

    Cost: a memory of predictions, and the matcher once a round. Needs sample ids.
    Reference: Liang, Huang, Ding, Jia 2023, arXiv 2302.14340, for surfaces by volume rendering and multi-view stereo,
    with normals beside depths.

    >>> def matcher(prediction):
    ...     values = torch.zeros(100, 1) if prediction is None else prediction.round()
    ...     return values, values[:, 0] > 0
    >>> recipe = tikhon.Recipe(tikhon.IntertwinedReg(matcher))
    """

    card = Card(
        title="HelixSurf: A Robust and Efficient Neural Implicit Surface Learning of Indoor Scenes with Iterative "
        "Intertwined Regularization",
        authors="Liang, Huang, Ding, Jia",
        year=2023,
        arxiv="2302.14340",
        problems=("stability", "overfitting"),
        formula=r"L = \mathrm{task} + \lambda\,\tfrac1n\sum_i m_i\,\lvert f(x_i) - g_i\rvert",
        claim="Surfaces of indoor scenes that are better than those of neural fields or of stereo alone, at a fraction "
        "of the time.",
        helps="Reconstruction with textured and flat regions; two estimators that fail in different places.",
        hurts="A matcher whose errors look consistent.",
        cost="A memory of predictions, and the matcher once a round.",
    )
    slots = {"prepare": "tap"}  # the model stays as it is
    needs = frozenset({"ids"})

    def __init__(self, matcher: Matcher, strength: Strength = 1.0, every: int = 10) -> None:
        super().__init__()
        if not callable(matcher):
            raise TikhonError(f"matcher must be a function from predictions to (values, trusted), not {matcher!r}.")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise TikhonError(f"every must be a positive number of epochs, not {every!r}.")
        self.strength = checked("strength", strength, low=0.0)
        self.matcher, self.every = matcher, every
        self.memory = PerSampleMemory()  # the latest prediction of every sample
        self.guide: Tensor
        self.trusted: Tensor
        self.register_buffer("guide", None)
        self.register_buffer("trusted", None)

    def prepare(self, model: nn.Module) -> None:
        self._match(None, next(model.parameters()))

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        assert target.ids is not None
        self._refuse(output)
        self.memory.write(target.ids, step.clean(output))

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        guide, trusted = target.lookup(self.guide.__getitem__), target.lookup(self.trusted.__getitem__)
        return {"difference": Term(guidance(output, guide, trusted), self.strength)}

    def epoch_end(self, step: Step) -> None:
        if (step.epoch + 1) % self.every == 0:
            predictions = self.memory.read(torch.arange(self.memory.samples, device=self.guide.device))
            self._match(predictions, predictions)

    @torch.no_grad()
    def _match(self, predictions: Tensor | None, like: Tensor) -> None:
        values, trusted = self.matcher(None if predictions is None else predictions.detach().cpu())
        if trusted.shape != (len(values),) or (predictions is not None and values.shape != predictions.shape):
            expected = "(samples, ...)" if predictions is None else tuple(predictions.shape)
            raise TikhonError(
                f"{self.key}: the matcher must give values {expected} and one boolean a sample, not shapes "
                f"{tuple(values.shape)} and {tuple(trusted.shape)}."
            )
        self.guide, self.trusted = values.to(like), trusted.to(like)

    def _refuse(self, output: Tensor) -> None:
        if self.guide.shape != (self.memory.samples, *output.shape[1:]):
            raise TikhonError(
                f"{self.key}: the matcher gives values {tuple(self.guide.shape)}, but the model predicts "
                f"{(self.memory.samples, *output.shape[1:])}, for all samples."
            )
