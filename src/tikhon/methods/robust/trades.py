"""TRADES: accuracy on clean inputs, and the same prediction on attacked ones."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.method import Method
from tikhon.core.sensitivity import one_float_tensor
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.attacks import Norm, check_attack, projected_ascent
from tikhon.math.distillation import softmax_divergence

START = 0.001
"""Standard deviation of the noise at which the attack begins: at the input itself the divergence has no gradient."""


class TRADES(Method):
    """Train the task on clean inputs, and keep predictions from changing within a radius of them.

    Use it where inputs may be attacked and clean accuracy counts too: beta says how much of it is paid for robustness.
    The labels have no part in the second term, so wrong ones do less harm than in adversarial training.

        loss = task + beta max_{||x' - x|| <= radius} KL(p(x) || p(x')),   x' by steps of signs of the gradient

    beta: at least 0, 6 in the paper (1/lambda), 1 favours clean accuracy; radius: in units of the inputs as the model
    gets them, 0.031 for images in [0, 1]; step_size: as a share of the radius, 0.007 / 0.031; steps: 10; norm: "inf" or
    "2"; valid: the least and greatest value of an input, (0, 1) for images.

    The attack is looked for once a batch; second passes (SAM, AWP) keep it. The network is attacked as it trains, with
    dropout and the statistics of the batch; the official code attacks it in eval mode. Batch norm's running statistics
    are those of clean inputs; in the official code they are of both. Gradients flow through both predictions.

    Cost: a forward and a backward pass a step of the attack, and one more of each for the term.
    Reference: Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan 2019, arXiv 1901.08573, equation 5.

    >>> recipe = tikhon.Recipe(tikhon.TRADES(beta=6.0, valid=(0.0, 1.0)))
    """

    card = Card(
        title="Theoretically Principled Trade-off between Robustness and Accuracy",
        authors="Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan",
        year=2019,
        arxiv="1901.08573",
        problems=("robustness",),
        formula=r"L = \ell(f(x), y) + \beta \max_{\lVert x'-x\rVert\le\epsilon} \mathrm{KL}(p(x)\,\Vert\,p(x'))",
        claim="A better trade between clean and robust accuracy than training on attacked inputs alone.",
        helps="Attacks within a known radius, where clean accuracy counts too.",
        hurts="Training time; large beta, which costs clean accuracy.",
        cost="A forward and a backward pass a step of the attack, and one more of each.",
        neutral="beta=0",
    )
    needs = frozenset({"classes"})
    exempt = {
        "accumulation": "each micro-batch draws starting points of its own",
        "permutation": "starting points belong to the rows of a batch",
    }

    def __init__(
        self,
        beta: Strength = 6.0,
        radius: Strength = 0.031,
        step_size: Strength = 0.007 / 0.031,
        steps: int = 10,
        norm: Norm = "inf",
        valid: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.beta = checked("beta", beta, low=0.0)
        self.radius = checked("radius", radius, low=0.0)
        self.step_size = checked("step_size", step_size, low=0.0)
        check_attack(steps, norm, valid)
        self.steps, self.norm, self.valid = steps, norm, valid
        self._attacked: Tensor | None = None  # inputs of the batch in hand

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        """Find the attacked inputs: in this moment, because second passes repeat terms and not this."""
        if step.value(self.beta) == 0.0:
            return
        clean, scores = one_float_tensor(step.inputs, self.key).detach(), output.detach()
        radius = step.value(self.radius)
        noise = torch.empty_like(clean).normal_(generator=step.generator(clean.device))
        self._attacked = projected_ascent(
            lambda changed: softmax_divergence(scores, step.forward(changed)),
            clean,
            START * noise,
            radius,
            step.value(self.step_size) * radius,
            self.steps,
            self.norm,
            self.valid,
        )

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.beta) == 0.0:
            return {}
        attacked = step.forward(self._attacked)
        return {"divergence": Term(softmax_divergence(output, attacked), self.beta)}
