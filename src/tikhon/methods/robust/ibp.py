"""Interval bound training: fit the worst scores that bounds allow near each input, and keep the bounds usable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.passes import eval_mode
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.bounds import Interval
from tikhon.math.intervals import box_around, margins

SMALLEST = 1e-12
"""Mean widths of layers are taken to be at least this."""


def excess_width(width: Tensor, layer_widths: Sequence[Tensor], tolerance: float = 0.5) -> Tensor:
    """mean_l relu(tolerance - w_0 / w_l) / tolerance: how much bounds grow from the input to the layers' inputs.

    width: w_0, the mean half-width of the input boxes, a scalar; layer_widths: w_l, of the boxes before each ReLU,
    scalars; tolerance: positive. Returns a scalar in [0, 1], 0 where no layer is more than 1 / tolerance times as wide
    as the input. Source: Shi et al. 2021, arXiv 2103.17268.

    >>> excess_width(torch.tensor(1.0), [torch.tensor(2.0), torch.tensor(4.0)])
    tensor(0.2500)
    """
    growth = width / torch.stack(list(layer_widths)).clamp_min(SMALLEST)
    return (tolerance - growth).relu().mean() / tolerance


def relu_imbalance(lower: Tensor, upper: Tensor, tolerance: float = 0.5) -> Tensor:
    """How unequal the ReLUs that are surely on and those that are surely off are, in the centres of their boxes.

        [relu(tolerance - b(m_on, m_off)) + relu(tolerance - b(v_on, v_off))] / tolerance,   b(x, y) = min / max

    m: sum of |centres|, v: sum of squared deviations of centres from their mean over all units, each over the units
    whose lower bound is above 0 (on) or whose upper bound is below 0 (off).

    lower, upper: bounds before a ReLU, (B, ...); tolerance: positive. Returns a scalar in [0, 2]; 0 where no unit is
    surely off, as in the official code. Source: Shi et al. 2021, arXiv 2103.17268.
    """
    centre = 0.5 * (upper + lower)
    deviation = (centre - centre.mean()).square()
    on, off = lower > 0, upper < 0
    sizes = (centre * on).sum(), (-centre * off).sum()
    spreads = (deviation * on).sum(), (deviation * off).sum()
    counts = (sizes[1] > 0) & (torch.maximum(*spreads) > 0)
    value = (tolerance - _balance(*sizes)).relu() + (tolerance - _balance(*spreads)).relu()
    return torch.where(counts, value / tolerance, 0.0)


def _balance(one: Tensor, other: Tensor) -> Tensor:
    largest = torch.maximum(one, other)
    return torch.minimum(one, other) / largest.where(largest > 0, 1.0)


@torch.no_grad()
def ibp_initialise(model: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Draw the weights anew, in place, so that interval bounds keep their width from layer to layer.

    Every weight of two or more dimensions but the last one, in order of registration, is drawn from a normal
    distribution of standard deviation sqrt(2 pi) / fan_in; biases, norms and the last layer stay. Before training, and
    before `recipe.prepare`. Source: Shi et al. 2021, arXiv 2103.17268; halve, after it, the weights of layers that read
    the sum of a residual block, as the paper does. Returns the model.

    >>> model = ibp_initialise(nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 10)))
    >>> bool((model[0].weight.std() / (2 * torch.pi) ** 0.5 * 1000 - 1).abs() < 0.01)
    True
    """
    weights = [one for one in model.parameters() if one.ndim > 1]
    for weight in weights[:-1]:
        weight.normal_(0.0, math.sqrt(2.0 * math.pi) / weight[0].numel(), generator=generator)
    return model


class IBPTraining(Method):
    """Train a network whose predictions interval bounds can certify.

    Use it for small and medium networks of the layers that `tikhon.math.bounds` knows, where a proof is wanted that no
    change of the input within eps changes the prediction. Accuracy is paid for it, the more the larger eps; where only
    attacks are feared, adversarial training costs less of it. Let eps rise from 0 in the first part of training,
    `eps=tk.linear(0, 0.1, over=(0, 0.5))`, and begin with `ibp_initialise(model)` of this module.
    `tikhon.measures.ibp_tightness.certified_accuracy` says what was reached.

        loss = task + strength (worst - clean) + regularisation (1 - eps / eps_max) (width + imbalance)

    worst: cross-entropy of the largest margins that the bounds allow in the box of inputs within eps; clean: that of
    the output; so with strength 1 the worst case is trained and the task itself is not. width and imbalance: the means
    over ReLUs of `excess_width` and `relu_imbalance`; they vanish as eps reaches the largest value of its schedule, and
    with a constant eps they are off.

    eps: at least 0, in units of the inputs as the model gets them; strength: in [0, 1]; regularisation: at least 0;
    tolerance: of both regularisers, positive; valid: the least and greatest value that an entry of the input can have,
    (0, 1) for images. The bounds are those of the model in eval mode, which is what will be certified: batch norm has
    its running statistics there, and dropout drops nothing. The paper bounds with the statistics of the clean batch.

    Cost: about two more passes, forward and backward, and B K D numbers for K classes and D features of the last layer.
    Reference: Shi, Wang, Zhang, Yi, Hsieh 2021, arXiv 2103.17268; worst case: Gowal et al. 2018, arXiv 1810.12715.

    >>> recipe = tikhon.Recipe(tikhon.IBPTraining(eps=tikhon.linear(0.0, 0.1, over=(0.0, 0.5)), valid=(0.0, 1.0)))
    """

    card = Card(
        title="Fast Certified Robust Training with Short Warmup",
        authors="Shi, Wang, Zhang, Yi, Hsieh",
        year=2021,
        arxiv="2103.17268",
        problems=("robustness",),
        formula=r"L = \max_{\lVert\delta\rVert\le\epsilon} \mathrm{CE\ (bounds)} + "
        r"\lambda(1 - \tfrac{\epsilon}{\epsilon_{max}})(L_{width} + L_{relu})",
        claim="Certified networks from short training: initialisation and regularisers keep bounds from exploding.",
        helps="Proofs of robustness for networks of moderate size.",
        hurts="Clean accuracy; large eps from the first step on.",
        cost="About two more passes, forward and backward.",
        neutral="strength=0, regularisation=0",
        example="eps=0.1",
    )
    needs = frozenset({"classes", "lasting layers"})
    exempt = {
        "accumulation": "width and imbalance are properties of the batch",
        "permutation": "width and imbalance are properties of the batch",
        "shards": "a pass of bounds returns no tensors, for whose gradients the sharding waits",
    }

    def __init__(
        self,
        eps: Strength,
        strength: Strength = 1.0,
        regularisation: Strength = 0.5,
        tolerance: Strength = 0.5,
        valid: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.eps = checked("eps", eps, low=0.0)
        self.strength = checked("strength", strength, low=0.0, high=1.0)
        self.regularisation = checked("regularisation", regularisation, low=0.0)
        self.tolerance = checked("tolerance", tolerance, low=1e-6)
        if valid is not None and not (len(valid) == 2 and valid[0] < valid[1]):
            raise TikhonError(f"valid is the least and the greatest value of an input, not {valid}.")
        self.valid = valid
        self.largest = self.eps if isinstance(self.eps, float) else max(self.eps.values)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        eps, strength = step.value(self.eps), step.value(self.strength)
        share = 1.0 - eps / self.largest if self.largest else 0.0
        regularisation = step.value(self.regularisation) * share
        if strength == 0.0 and regularisation == 0.0:
            return {}
        inputs = step.inputs
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or output.ndim != 2:
            raise TikhonError(f"{self.key} bounds scores (B, K) over boxes around inputs that are one float tensor.")
        box = Interval(*box_around(inputs, eps, self.valid))
        with eval_mode(step.model):
            scores = step.read(step.model(box))
        probabilities = target.dense(output.shape[1]).to(output)
        worst = scores.margins(probabilities).logsumexp(1)
        clean = margins(output, torch.zeros_like(output), probabilities).logsumexp(1)
        terms = {"worst_case": Term(worst - clean, strength)}
        if regularisation:
            terms |= self._regularisers(box, step.value(self.tolerance), regularisation)
        return terms

    def _regularisers(self, box: Interval, tolerance: float, strength: float) -> Terms:
        reached = box.before_relu
        if not reached:
            raise TikhonError(f"{self.key} regularises bounds before ReLUs and met none: set regularisation=0.")
        width = excess_width(box.radius.mean(), [one.radius.mean() for one in reached], tolerance)
        imbalance = torch.stack([relu_imbalance(one.lower, one.upper, tolerance) for one in reached]).mean()
        return {
            "width": Term(width, strength, per_sample=False),
            "imbalance": Term(imbalance, strength, per_sample=False),
        }
