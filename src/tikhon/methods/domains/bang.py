"""BANG: fine-tune without growing over-confident, then average the weights with the pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Snapshot, Where, select
from tikhon.core.step import Step
from tikhon.core.strength import Schedule, Strength, checked
from tikhon.core.target import Target


def interpolated(pretrained: Sequence[Tensor], finetuned: Sequence[Tensor], share: float) -> list[Tensor]:
    """(1 - share) theta_0 + share theta_1 of all tensors (Wortsman et al. 2022, arXiv 2109.01903).

    pretrained, finetuned: tensors of equal shapes; share: of the fine-tuned ones, in [0, 1]; at 0 and 1 the result is
    one of them to the bit.

    >>> interpolated([torch.tensor([0.0])], [torch.tensor([1.0])], 0.25)
    [tensor([0.2500])]
    """
    return list(torch._foreach_lerp(list(pretrained), list(finetuned), share))


class BANG(Method):
    """Fine-tune a pretrained classifier on smoothed labels, and deploy the average of its weights before and after.

    Use it where a pretrained network is fine-tuned and test data differ from the training data: the average leans on
    the cues of both networks, so that each single cue that breaks weighs less. A network fine-tuned on hard labels is
    so much surer than the pretrained one that it outvotes it in the average; smoothing keeps them balanced. Not where
    training starts from scratch, nor where fine-tuning ends far from where it began (large rates, long training):
    the average of far apart weights may be worse than either.

        task against (1 - s) one_hot(y) + s / K,  then  theta = (1 - a) theta_0 + a theta_1

    theta_0: the weights when the model is prepared, so load the pretrained ones before. Training itself knows nothing
    of the average: `recipe.deployed()` shows it for validation, and `export` keeps it.

    share: a, the part of the fine-tuned weights, in [0, 1], 0.5; read once, at the end; smoothing: s, in [0, 1], 0.1;
    0 is WiSE-FT; where: which parameters are averaged, all by default; leave out a head that was not pretrained. The
    paper smooths labels, mixes samples, or does both: that is `tikhon.Recipe(tikhon.BANG(), tikhon.MixUp(0.2))`.
    Statistics of batch norm are those of the fine-tuned network.

    Cost: a copy of the pretrained weights. References: Lin, Tan, Hao, Wong, Dong, Zhang, Yang, Zhang 2023, arXiv
    2309.17230; WiSE-FT is Wortsman et al. 2022, arXiv 2109.01903.

    >>> recipe = tikhon.Recipe(tikhon.BANG(share=0.5, smoothing=0.1))
    """

    card = Card(
        title="Spurious Feature Diversification Improves Out-of-distribution Generalization",
        authors="Lin, Tan, Hao, Wong, Dong, Zhang, Yang, Zhang",
        year=2023,
        arxiv="2309.17230",
        problems=("shift", "robustness", "calibration"),
        formula=r"\theta = (1-a)\,\theta_0 + a\,\theta_1,\quad \theta_1\ \text{fine-tuned on}\ (1-s)\,e_y + s/K",
        claim="The average of pretrained and fine-tuned weights beats both under shift, most if neither is too sure.",
        helps="Fine-tuning of good pretrained networks whose test data come from elsewhere.",
        hurts="Training from scratch; long fine-tuning that ends far from the pretrained weights.",
        cost="A copy of the pretrained weights.",
        neutral="share=1.0, smoothing=0",
    )
    slots = {"prepare": "tap", "targets": "smooth"}
    needs = frozenset({"classes", "plain weights"})
    breaks = frozenset({"zero-keeping weights"})

    def __init__(self, share: float = 0.5, smoothing: Strength = 0.1, where: Where = "all") -> None:
        super().__init__()
        if isinstance(share, Schedule):
            raise TikhonError("share is read once, at the end, so it is a number and no schedule.")
        checked("share", share, low=0.0, high=1.0)
        self.share = share
        self.smoothing = checked("smoothing", smoothing, low=0.0, high=1.0)
        self.where = where
        self.pretrained = Snapshot()
        self._chosen: list[Selected] = []

    def prepare(self, model: nn.Module) -> None:
        self._chosen = select(model, self.where)
        self.pretrained.take({one.name: one.leaf for one in self._chosen})

    def targets(self, output: Tensor, target: Target, step: Step) -> Target:
        return target.smooth(step.value(self.smoothing))

    def averages(self) -> Mapping[str, Tensor]:
        trained = [one.leaf.detach() for one in self._chosen]
        averaged = interpolated(self.pretrained.matching(self._chosen), trained, self.share)
        return {one.name: value for one, value in zip(self._chosen, averaged, strict=True)}
