"""R-Drop: two passes under different dropout masks must agree."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import over_positions
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32


def symmetric_divergence(p: Tensor, q: Tensor) -> Tensor:
    """(KL(p || q) + KL(q || p)) / 2 over dimension 1, in nats (Liang et al. 2021, arXiv 2106.14448, eq. 2).

    p, q: (B, K, ...), sum to 1 over the classes. Returns (B, ...), in float32 at least, at least 0; probabilities of 0
    are taken as the smallest normal number.

    >>> symmetric_divergence(torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]]))
    tensor([0.5493])
    """
    p, q = at_least_float32(p), at_least_float32(q)
    tiny = torch.finfo(p.dtype).tiny
    return 0.5 * ((p - q) * (p.clamp_min(tiny).log() - q.clamp_min(tiny).log())).sum(1)


class RDrop(Method):
    """Pass every batch twice, under different dropout masks, and draw the two predictions together.

    Use it where a network is trained with dropout, transformers above all: dropout trains a network that is not the one
    deployed, and this closes the gap. Not without dropout, in the model or inserted by a method of the recipe, where
    both passes are the same (which is refused at the first step); nor where a step must not cost twice as much.

        loss = (task_1 + task_2) / 2 + alpha (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2

    alpha: at least 0, 1 by default; 0 is plain training, in one pass. The paper adds the two tasks up instead of taking
    the mean, as its code for language does: its alpha is twice this one. In the paper 5 for translation, 0.6 for vision
    transformers. Running statistics of norms are those of the first pass.

    Cost: a second forward and backward pass. Masks come from torch's global generator, as `nn.Dropout`'s do; those of
    the second pass from the method's own.
    Reference: Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu 2021, arXiv 2106.14448.

    >>> recipe = tikhon.Recipe(tikhon.RDrop(alpha=1.0))
    """

    card = Card(
        title="R-Drop: Regularized Dropout for Neural Networks",
        authors="Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu",
        year=2021,
        arxiv="2106.14448",
        problems=("overfitting",),
        formula=r"L = \tfrac12(L_1 + L_2) + \tfrac\alpha2\,[\mathrm{KL}(p_1\|p_2) + \mathrm{KL}(p_2\|p_1)]",
        claim="Better than dropout alone on translation, summarisation, language understanding and images.",
        helps="Networks that are trained with dropout and over-fit.",
        hurts="Networks that under-fit; budgets counted in passes.",
        cost="A second forward and backward pass.",
        neutral="alpha=0",
    )
    needs = frozenset({"classes", "dropout"})
    exempt = {
        "accumulation": "every micro-batch draws masks of its own",
        "permutation": "masks belong to places in the batch",
        "reproducible": "masks come from the global generator, as those of nn.Dropout do",
    }

    def __init__(self, alpha: Strength = 1.0) -> None:
        super().__init__()
        self.alpha = checked("alpha", alpha, low=0.0)
        self._second: Tensor | None = None  # from `terms` to `evaluate`, which follows it
        self._confirmed = False

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        self._second = None
        if step.value(self.alpha) == 0.0:
            return {}
        second = self._second = step.forward(step.inputs, redraw=True)
        if not self._confirmed:
            self._confirm(output, second)
        one, other = (step.loss.probabilities(at_least_float32(scores)) for scores in (output, second))
        divergence = symmetric_divergence(one, other)
        return {"divergence": Term(over_positions(divergence, step.loss, target), self.alpha)}

    def evaluate(self, output: Tensor, target: Target, step: Step) -> tuple[Tensor, Target]:
        second, self._second = self._second, None
        return (output, target) if second is None else (torch.cat([output, second]), target.repeat(2))

    def _confirm(self, output: Tensor, second: Tensor) -> None:
        """Once, because it looks at values."""
        if torch.allclose(output, second, rtol=1e-3, atol=1e-5):
            raise TikhonError(
                f"{self.key}: two passes of the model gave the same output, so that there is nothing to draw together. "
                "Give the model nn.Dropout layers with p > 0 (and put it into training mode), or leave this out."
            )
        self._confirmed = True
