"""EATA: adapt to test data while predicting, on samples that are reliable and new, without forgetting the old data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.fisher import fisher_diagonal
from tikhon.core.losses import Loss, no_loss
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot, Where, freeze_others, select
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.entropy import softmax_entropy
from tikhon.math.fisher import anchor_penalty
from tikhon.math.precision import at_least_float32


def reliability(entropy: Tensor, margin: float) -> Tensor:
    """exp(E0 - H), the weight of a sample: (B,) -> (B,), above 1 for kept samples (Niu et al. 2022, arXiv 2204.02610).

    entropy: H, in nats; margin: E0.

    >>> reliability(torch.tensor([0.5]), 0.5)
    tensor([1.])
    """
    return torch.exp(margin - entropy)


def reliable_and_new(probabilities: Tensor, mean: Tensor, entropy: Tensor, margin: float, similarity: float) -> Tensor:
    """[H < E0] [|cos(p, m)| < d] of every sample, (B,) bool.

    probabilities: p, (B, K); mean: m, (K,), the running mean, zeros where there is none yet, which resembles nothing;
    entropy: H, (B,); margin: E0; similarity: d.
    """
    return (entropy < margin) & (F.cosine_similarity(probabilities, mean[None], dim=1).abs() < similarity)


def moved_mean(mean: Tensor, probabilities: Tensor, kept: Tensor, momentum: float) -> Tensor:
    """momentum m + (1 - momentum) (mean of the kept rows); that mean alone where m is zero, m where none is kept.

    mean: (K,); probabilities: (B, K); kept: (B,) bool. Returns (K,).

    >>> moved_mean(torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([True, False]), 0.9)
    tensor([0.9000, 0.1000])
    """
    count = kept.sum()
    new = (probabilities * kept[:, None]).sum(0) / count.clamp_min(1)
    moved = torch.where(mean.any(), torch.lerp(new, mean, momentum), new)
    return torch.where(count > 0, moved, mean)


class EATA(Method):
    """Adapt a trained classifier to shifted test data without labels, on samples that are reliable and new.

    Use it where a model meets data that differ from its training data (other cameras, noise, weather) in a stream, and
    must stay good on the old. It needs no labels: `recipe.loss(x)` on every batch of the stream, model in train mode,
    so that batch norm sees the batch; predict with the same model in train mode, or in eval mode, whose running
    statistics follow the stream. Not with batches of a few samples or of one class, nor where the model is wrong on
    most of the stream: it then grows sure of its errors.

        loss = mean over kept of exp(E0 - H) H + strength sum_i F_i (theta_i - theta0_i)^2
        kept: H < E0 and |cos(p, m)| < d;   m <- momentum m + (1 - momentum) (mean of kept p)

    H: entropy of the prediction p; the weight exp(E0 - H) has no gradient; F: the diagonal of the Fisher information
    of the loss against the model's own decisions on data like the training data, at theta0. Give these, without labels,
    before the stream: `recipe.end_task(loader)`. Without it there is no anchor, and the method is ETA. Where nothing of
    a batch is kept, its gradient is zero, the anchor's too; the optimizer steps all the same, so that momentum and
    weight decay still move weights, where the official code takes no step.

    margin: E0 in units of log K, 0.4 in the paper; similarity: d, 0.05 for a thousand classes, 0.4 for ten; strength:
    at least 0, 2000 in the paper; momentum: in [0, 1], 0.9; where: the only parameters that train, until export: scale
    and shift of the norms. `kept` says which samples of the last batch counted. The official code squares the mean
    gradients of batches of 64, which gives a smaller F than the paper's single samples do, by up to that factor. Tent
    (Wang et al. 2021, arXiv 2006.10726) keeps all samples, has no weights and no anchor: the entropy as base loss, as
    below, and an optimizer of the norms alone.

    Cost: an entropy a sample; a backward pass, as Tent. The Fisher: gradients of single samples, once.
    Reference: Niu, Wu, Zhang, Chen, Zheng, Zhao, Tan 2022, arXiv 2204.02610.

    >>> recipe = tikhon.Recipe(tikhon.EATA(similarity=0.4))
    >>> from tikhon.math.entropy import softmax_entropy
    >>> tent = tikhon.Recipe(base=tikhon.OutputLoss(softmax_entropy))
    """

    card = Card(
        title="Efficient Test-Time Model Adaptation without Forgetting",
        authors="Niu, Wu, Zhang, Chen, Zheng, Zhao, Tan",
        year=2022,
        arxiv="2204.02610",
        problems=("shift", "forgetting"),
        formula=r"L = \overline{[H<E_0]\,[|\cos(p,m)|<d]\,e^{E_0-H}H} + \beta\sum_i F_i(\theta_i-\theta^0_i)^2",
        claim="Adapts better than Tent to corrupted data from fewer samples, and does not forget the clean data.",
        helps="Streams of shifted data in batches of several classes, on networks with normalisation layers.",
        hurts="Small batches; a model that is mostly wrong; classes that come one at a time.",
        cost="An entropy a sample and a backward pass; gradients of single samples once, for the Fisher.",
        neutral="",
    )
    slots = {"prepare": "gate", "targets": "distil", "export": "merge"}
    breaks = frozenset({"classes", "values"})
    exempt = {
        "neutral": "the loss takes the place of the recipe's",
        "accumulation": "the running mean moves by what is kept of a batch",
    }

    def __init__(
        self,
        margin: Strength = 0.4,
        similarity: Strength = 0.05,
        strength: Strength = 2000.0,
        momentum: Strength = 0.9,
        where: Where = "norms",
    ) -> None:
        super().__init__()
        self.margin = checked("margin", margin, low=0.0)
        self.similarity = checked("similarity", similarity, low=0.0)
        self.strength = checked("strength", strength, low=0.0)
        self.momentum = checked("momentum", momentum, low=0.0, high=1.0)
        self.where = where
        self.mean = PerSampleMemory(rows=1)
        self.anchor, self.importance = Snapshot(), Snapshot()
        self.kept: Tensor | None = None
        self._frozen: list[nn.Parameter] = []

    def prepare(self, model: nn.Module) -> None:
        self._frozen = freeze_others(model, [one.leaf for one in select(model, self.where)])

    def loss_function(self, loss: Loss) -> Loss:
        return no_loss

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        if output.ndim != 2 or output.shape[1] < 2:
            raise TikhonError(f"{self.key} needs class scores (B, K); the model gave {tuple(output.shape)}.")
        scores = at_least_float32(output.detach())
        p = scores.softmax(1)
        row = torch.zeros(1, dtype=torch.int64, device=p.device)
        mean = self.mean.read(row, like=p[:1])[0]
        similarity = step.value(self.similarity)
        self.kept = reliable_and_new(p, mean, softmax_entropy(scores), self._margin(output, step), similarity)
        self.mean.write(row, moved_mean(mean, p, self.kept, step.value(self.momentum))[None])

    def _margin(self, output: Tensor, step: Step) -> float:
        return step.value(self.margin) * math.log(output.shape[1])

    def targets(self, output: Tensor, target: Target, step: Step) -> Target:
        assert self.kept is not None, "remember comes before"
        return target.weighted(self.kept.to(output.dtype))

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        assert self.kept is not None, "remember comes before"
        entropy = softmax_entropy(at_least_float32(output))
        terms = {"entropy": Term(entropy * reliability(entropy.detach(), self._margin(output, step)))}
        if self.anchor.tensors:
            # Not a term on parameters alone: it counts where something of the batch is kept.
            chosen = step.select(self.where)
            leaves = [one.leaf for one in chosen]
            distance = 2.0 * anchor_penalty(leaves, self.anchor.matching(chosen), self.importance.matching(chosen))
            terms["anchor"] = Term(distance * self.kept.any(), self.strength, per_sample=False)
        return terms

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        if batches is None:  # said to other methods: there is nothing to estimate from
            return
        chosen = step.select(self.where)
        fisher = fisher_diagonal(chosen, batches, lambda output, _: output.argmax(1), F.cross_entropy, step, self.key)
        self.importance.take(fisher)
        self.anchor.take({one.name: one.leaf for one in chosen})

    def export(self, model: nn.Module) -> nn.Module:
        for parameter in self._frozen:
            parameter.requires_grad_()
        return model
