"""Mean teacher: predict, also of inputs without labels, what an average of your own weights predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tikhon.core.augmentations import View, drawn_like, noise, viewed
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Selected, Snapshot
from tikhon.core.pool import Dataset, Pool
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.teacher import answer_with
from tikhon.core.terms import Term, Terms


def disagreement(p: Tensor, q: Tensor) -> Tensor:
    """(1/K) sum_k (p_k - q_k)^2 of every sample: (B, K), (B, K) -> (B,), in [0, 2 / K].

    >>> disagreement(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    tensor([0.2500])
    """
    return (p - q).square().mean(1)


def ramp_up(share: float) -> float:
    """exp(-5 (1 - t)^2), from 0.0067 at t = 0 to 1 at t = 1 (Laine and Aila 2016, arXiv 1610.02242).

    >>> ramp_up(1.0)
    1.0
    """
    return math.exp(-5.0 * (1.0 - share) ** 2)


class MeanTeacher(Method):
    """Learn from inputs without labels: agree on each, seen with noise, with the average of your weights so far.

    Use it where labels are few and inputs many; with wrong labels too, without further inputs. Not where no change of
    an input is known that keeps its meaning, nor where the unlabelled inputs are of other classes. The teacher follows
    the student after every step, and it is the teacher that `recipe.deployed()` and `export` give.

        loss = task + strength r(t) mean over x of (1/K) |p(x) - p_teacher(x')|^2,   teacher <- d teacher + (1 - d) w
        d = min(1 - 1 / (n + 2), decay) at step n

    x: the inputs of the batch as they come, for which no further pass is needed, and `count` inputs drawn from those
    without labels, in a view of their own; x': another view of the same. r(t) = exp(-5 (1 - t)^2) grows to 1 over the
    first part of training. The teacher predicts in eval mode, with the student's running statistics; in the official
    code it has batch statistics and dropout of its own.

    unlabelled: a tensor (M, ...) or a map-style data set of inputs, given again on resume; none: the batch's alone;
    strength: at least 0, 100 in the paper; decay: in [0, 1]; ramp: share of training over which the strength grows, 0
    for none; count: inputs drawn for a batch, None for as many as it has; view: (inputs, generator) -> inputs, Gaussian
    noise of 0.15 as in the paper; better are the changes that you would augment with.

    Cost: a copy of the weights; a forward pass with them on all inputs, and one on the unlabelled with gradient.
    Reference: Tarvainen, Valpola 2017, arXiv 1703.01780.

    >>> recipe = tikhon.Recipe(tikhon.MeanTeacher(torch.randn(256, 4), ramp=0.0))
    """

    card = Card(
        title="Mean teachers are better role models",
        authors="Tarvainen, Valpola",
        year=2017,
        arxiv="1703.01780",
        problems=("overfitting", "noisy-labels"),
        formula=r"L = \mathrm{task} + \lambda\,r(t)\,\overline{\tfrac1K\lVert p(x)-p_{\bar\theta}(x')\rVert^2},"
        r"\quad \bar\theta \leftarrow d\,\bar\theta+(1-d)\,\theta",
        claim="With few labels and many inputs without, test errors fall far below those of labels alone.",
        helps="Few labels, many inputs of the same classes, and changes of inputs that keep their meaning.",
        hurts="Unlabelled inputs of other classes; batch norm, whose running statistics see the batch alone.",
        cost="A copy of the weights; a forward pass with them on all inputs, and one with gradient on the unlabelled.",
    )
    slots = {"gradients": "noise", "after_step": "average"}
    needs = frozenset({"classes"})
    exempt = {
        "accumulation": "every micro-batch draws views and inputs of its own",
        "permutation": "what a view changes in a sample depends on its place in the batch",
        "shards": "passes with the teacher's weights come between those of the student, which it does not bear",
    }

    def __init__(
        self,
        unlabelled: Tensor | Dataset | None = None,
        strength: Strength = 100.0,
        decay: Strength = 0.999,
        ramp: float = 0.25,
        count: int | None = None,
        view: View | None = None,
    ) -> None:
        super().__init__()
        self.pool = None if unlabelled is None else Pool(unlabelled, "mean_teacher")
        self.strength = checked("strength", strength, low=0.0)
        self.decay = checked("decay", decay, low=0.0, high=1.0)
        if not isinstance(checked("ramp", ramp, low=0.0, high=1.0), float):
            raise TikhonError(f"ramp is a share of training, not {ramp!r}.")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise TikhonError(f"count must be a positive integer, not {count!r}.")
        if ramp:
            self.needs = frozenset({"classes", "length"})
        self.ramp, self.count, self.view = ramp, count, view or noise(0.15)
        self.teacher = Snapshot()

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        strength = step.value(self.strength) * (ramp_up(min(1.0, step.progress / self.ramp)) if self.ramp else 1.0)
        if strength == 0.0:
            return {}
        if output.ndim != 2:
            raise TikhonError(f"{self.key} needs class scores (B, K); the model gave {tuple(output.shape)}.")
        pairs = [(output, viewed(step.inputs, self.view, step, self.key))]
        if self.pool is not None:
            x = drawn_like(self.pool, self.count or len(output), step)
            student = step.forward(viewed(x, self.view, step, self.key), redraw=True)
            pairs.append((student, viewed(x, self.view, step, self.key)))
        distances = [disagreement(step.loss.probabilities(scores), self._taught(x, step)) for scores, x in pairs]
        return {"consistency": Term(torch.cat(distances).mean(), strength, per_sample=False)}

    def _taught(self, inputs: object, step: Step) -> Tensor:
        weights = {}
        if self.teacher.tensors:  # before the first step the teacher is the student
            names = {id(leaf): name for name, leaf in step.model.named_parameters()}
            weights = {names[id(one.leaf)]: self.teacher.tensors[one.key] for one in step.select("all")}
        return step.loss.probabilities(answer_with(weights, inputs, step))

    def gradients(self, parameters: Sequence[Selected], step: Step) -> None:
        # No gradient is changed: the teacher's first weights are those before the first step.
        if not self.teacher.tensors:
            self.teacher.take({one.key: one.leaf for one in step.select("all")})

    def after_step(self, model: nn.Module, step: Step) -> None:
        chosen = step.select("all")
        decay = min(step.value(self.decay), 1.0 - 1.0 / (step.number + 2))
        teacher = [self.teacher.tensors[one.key] for one in chosen]
        torch._foreach_lerp_(teacher, [one.leaf.detach() for one in chosen], 1.0 - decay)

    def averages(self) -> Mapping[str, Tensor]:
        return self.teacher.tensors
