"""Virtual adversarial training: predictions that do not change where a small change would move them the most."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.pool import Dataset, Pool
from tikhon.core.sensitivity import one_float_tensor
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.attacks import steepest
from tikhon.math.distillation import softmax_divergence


def virtual_adversarial_direction(
    divergences: Callable[[Tensor], Tensor], noise: Tensor, xi: float, iterations: int
) -> Tensor:
    """The direction in which a divergence grows fastest around 0, by power iteration on its Hessian.

        d <- grad D(xi d) / ||grad D(xi d)||   (Miyato et al. 2017, arXiv 1704.03976, equations 11 to 13)

    divergences: changes r (B, ...) -> D(r), (B,), with D and its gradient 0 at r = 0; noise: (B, ...), where to begin,
    not zero; xi: positive, how far from 0 the gradient is taken; iterations: at least 1. Returns unit vectors
    (B, ...), without gradient; 0 where D is flat.

    >>> stretch = torch.tensor([1.0, 3.0])
    >>> d = virtual_adversarial_direction(lambda r: (stretch * r).square().sum(1), torch.ones(1, 2), 0.1, 8)
    >>> d.round(decimals=3)
    tensor([[0., 1.]])
    """
    direction = steepest(noise.detach(), "2")
    with torch.enable_grad():
        for _ in range(iterations):
            change = (xi * direction).requires_grad_()
            (gradient,) = torch.autograd.grad(divergences(change).sum(), change)
            direction = steepest(gradient, "2")
    return direction


class VirtualAdversarialTraining(Method):
    """Penalise how much the prediction changes in the direction in which it changes most.

    Use it where labels are few and unlabelled inputs of the same kind are many: it needs no labels, and pushes the
    boundaries between classes to where no data are. It helps with labels alone too. Not where small changes of the
    input do change the class.

        r_i = eps argmax_{||d|| = 1} KL(p(x_i) || p(x_i + xi d))
        loss = task + strength mean_i KL(p(x_i) || p(x_i + r_i))

    eps: radius in Euclidean units of the inputs, at least 0, the one to be searched: 0.05 to 10 in the paper, 8 in the
    official code for CIFAR-10; strength: at least 0, 1; iterations: of the power method, 1; xi: where its gradient is
    taken, positive. The paper's xi is 1e-6, at which rounding in float32 leaves next to nothing of the direction (a
    cosine of 0.1 with it on digits; 0.9998 at 1e-3, the default here); in float64 it is fine.

    unlabelled: further inputs, a tensor (M, ...) or a data set, on which the penalty then is, as in the official code
    in place of the labelled batch: put the labelled inputs among them; count: how many of them a step.

    No gradient flows through p(x), nor through r. Dropout draws masks of its own in each pass, and batch norm takes
    the statistics of the batch, of which no running ones move.

    Cost: two forward and backward passes; on unlabelled inputs a forward pass more.
    Reference: Miyato, Maeda, Koyama, Ishii 2017, arXiv 1704.03976.

    >>> recipe = tikhon.Recipe(tikhon.VirtualAdversarialTraining(eps=1.0, unlabelled=torch.randn(1000, 20)))
    """

    card = Card(
        title="Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised Learning",
        authors="Miyato, Maeda, Koyama, Ishii",
        year=2017,
        arxiv="1704.03976",
        problems=("overfitting", "robustness"),
        formula=r"\mathrm{LDS}(x) = \mathrm{KL}\big(p(\cdot|x)\,\Vert\,p(\cdot|x+r)\big),\quad "
        r"r = \arg\max_{\lVert r\rVert\le\epsilon}\mathrm{KL}",
        claim="Smoothing the prediction around labelled and unlabelled inputs lowers the error, most with few labels.",
        helps="Few labels, many unlabelled inputs of the same kind.",
        hurts="Inputs whose class small changes do change; unlabelled inputs of other kinds.",
        cost="Two forward and backward passes.",
    )
    needs = frozenset({"classes"})
    exempt = {
        "accumulation": "each micro-batch draws directions of its own",
        "permutation": "first directions belong to the rows of a batch",
    }

    def __init__(
        self,
        eps: Strength = 1.0,
        strength: Strength = 1.0,
        iterations: int = 1,
        xi: Strength = 1e-3,
        unlabelled: Tensor | Dataset | None = None,
        count: int = 128,
    ) -> None:
        super().__init__()
        for name, value in (("iterations", iterations), ("count", count)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TikhonError(f"{name} must be a positive integer, not {value!r}.")
        self.eps = checked("eps", eps, low=0.0)
        self.strength = checked("strength", strength, low=0.0)
        self.xi = checked("xi", xi, low=1e-9)
        self.iterations, self.count = iterations, count
        self.pool = None if unlabelled is None else Pool(unlabelled, self.key)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0:
            return {}
        inputs = one_float_tensor(step.inputs, self.key).detach()
        if self.pool is None:
            return {"smoothness": Term(self._smoothness(inputs, output.detach(), step), self.strength)}
        inputs = self.pool.draw(self.count, step, inputs.device).to(inputs.dtype)
        with torch.no_grad():
            scores = step.forward(inputs)
        return {"smoothness": Term(self._smoothness(inputs, scores, step).mean(), self.strength, per_sample=False)}

    def _smoothness(self, inputs: Tensor, scores: Tensor, step: Step) -> Tensor:
        """KL(p(x) || p(x + r)) of every sample, (B,)."""

        def divergences(change: Tensor) -> Tensor:
            return softmax_divergence(scores, step.forward(inputs + change))

        noise = torch.empty_like(inputs).normal_(generator=step.generator(inputs.device))
        direction = virtual_adversarial_direction(divergences, noise, step.value(self.xi), self.iterations)
        return divergences(step.value(self.eps) * direction)
