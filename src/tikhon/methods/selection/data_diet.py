"""Data diet: score samples early in training and train on the hard ones alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.target import Target
from tikhon.math.difficulty import el2n
from tikhon.math.precision import at_least_float32


def hardest(scores: Tensor, keep: float, skip_hardest: float = 0.0) -> Tensor:
    """Which samples to keep: the share `keep` with the highest scores below the share `skip_hardest` at the very top.

    scores: (N,), finite; of equal ones the later ranks higher. Returns round(keep * N) indices, at least 1, sorted.

    >>> hardest(torch.tensor([0.1, 0.9, 0.5, 0.3]), keep=0.5)
    tensor([1, 2])
    """
    end = max(1, len(scores) - round(skip_hardest * len(scores)))
    begin = max(0, end - max(1, round(keep * len(scores))))
    return scores.argsort(stable=True)[begin:end].sort().values


class DataDiet(Method):
    """Train on the samples that are hard early in training, and leave the easy ones out.

    Use it where data are plenty and redundant, to find what can be left out. Not for small sets; and where labels are
    wrong the hardest samples are the wrong ones: leave these out too with `skip_hardest`.

        EL2N_i = mean over epochs of ||p_i - y_i||_2,   keep the share of samples with the highest

    keep: the share kept, in (0, 1]; scores: (samples,) scores to select by from the start, for example `el2n` or
    `grand` of `tikhon.math.difficulty`, averaged over several networks as in the paper; score_epochs: over how many of
    the first epochs of this training EL2N is averaged where no scores are given (the paper scores at epoch 10 to 20 of
    200); skip_hardest: a share left out at the top.

    What is left out has weight 0 and still takes its time; to save that, train on torch's `Subset(indexed_data,
    method.kept().tolist())`. Under `total=` count the kept samples alone. Samples that were never scored are left out.

    Cost: two numbers a sample; with mixing one extra forward pass while scoring. Needs sample ids.
    Reference: Paul, Ganguli, Dziugaite 2021, arXiv 2107.07075.

    >>> recipe = tikhon.Recipe(tikhon.DataDiet(keep=0.5, score_epochs=10))
    """

    card = Card(
        title="Deep Learning on a Data Diet: Finding Important Examples Early in Training",
        authors="Paul, Ganguli, Dziugaite",
        year=2021,
        arxiv="2107.07075",
        problems=("speed", "noisy-labels", "overfitting"),
        formula=r"\mathrm{EL2N}_i = \mathbb{E}\,\lVert p_w(x_i) - y_i\rVert_2",
        claim="EL2N after a few epochs prunes half of CIFAR-10 while slightly improving test accuracy.",
        helps="Large, redundant data sets; a look at which samples are hard or mislabelled.",
        hurts="Small data sets, and wrong labels, which rank as the hardest.",
        cost="Two numbers a sample; with mixing one extra forward pass while scoring.",
        neutral="keep=1.0",
        example="score_epochs=1",
    )
    slots = {"batch": "select"}
    needs = frozenset({"ids", "classes"})

    def __init__(
        self, keep: float = 0.5, scores: Tensor | None = None, score_epochs: int = 10, skip_hardest: float = 0.0
    ) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise TikhonError(f"keep is the share of samples kept, in (0, 1], not {keep}.")
        if not 0.0 <= skip_hardest <= 1.0 - keep + 1e-9:
            raise TikhonError(f"skip_hardest must be in [0, 1 - keep], with keep={keep:g}, not {skip_hardest}.")
        if isinstance(score_epochs, bool) or not isinstance(score_epochs, int) or score_epochs < 1:
            raise TikhonError(f"score_epochs must be a positive integer, not {score_epochs!r}.")
        self.keep, self.score_epochs, self.skip_hardest = keep, score_epochs, skip_hardest
        self.memory = PerSampleMemory()  # of every sample the mean score and how many scores
        self.selected: Tensor | None  # (samples,) bool; None until chosen, and so saved as extra state
        self.register_buffer("selected", None, persistent=False)
        if scores is not None:
            self.needs = frozenset({"ids"})
            if not isinstance(scores, Tensor) or scores.ndim != 1 or not len(scores) or not scores.isfinite().all():
                raise TikhonError("scores must be a tensor (samples,) of finite numbers, one score a sample.")
            self._select(scores.detach())

    def _select(self, scores: Tensor) -> None:
        scored = (~scores.isnan()).nonzero()[:, 0]  # the others are not counted, and not kept
        self.selected = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        self.selected[scored[hardest(scores[scored], self.keep, self.skip_hardest)]] = True

    def kept(self) -> Tensor:
        """The ids of the samples kept, in increasing order, on the CPU."""
        if self.selected is None:
            raise TikhonError(f"{self.key} has not selected yet: it scores for {self.score_epochs} epochs first.")
        return self.selected.nonzero()[:, 0].cpu()

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        if self.selected is None or self.keep == 1.0:
            return inputs, target
        if len(self.selected) != self.memory.samples:
            raise TikhonError(f"{self.key} has {len(self.selected)} scores; prepare has samples={self.memory.samples}.")
        assert target.ids is not None
        selected = self.selected.to(target.ids.device)  # a state may have been loaded onto another device
        return inputs, target.weighted(selected[target.ids].to(torch.get_default_dtype()))

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        if self.selected is not None:
            return
        if output.ndim != 2:
            raise TikhonError(f"{self.key} scores one label a sample; the output {tuple(output.shape)} has several.")
        assert target.ids is not None
        probabilities = at_least_float32(step.loss.probabilities(step.clean(output)))  # bfloat16 counts to 256 only
        scores = el2n(probabilities, target.value)
        mean, count = self.memory.read(target.ids, like=scores[:, None].expand(-1, 2)).unbind(1)
        self.memory.write(target.ids, torch.stack([mean + (scores - mean) / (count + 1.0), count + 1.0], dim=1))

    def epoch_end(self, step: Step) -> None:
        if self.selected is None and step.epoch + 1 >= self.score_epochs:
            if self.memory.table is None:
                raise TikhonError(f"{self.key} has scored no sample in {self.score_epochs} epochs: no step was made.")
            mean, count = self.memory.table.unbind(1)
            self._select(mean.masked_fill(count == 0, torch.nan))

    def get_extra_state(self) -> dict[str, Tensor | None]:
        return {"selected": self.selected}

    def set_extra_state(self, state: dict[str, Tensor | None]) -> None:
        self.selected = None if state["selected"] is None else state["selected"].clone()
