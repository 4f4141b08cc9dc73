"""Adversarial training: train on the worst inputs nearby, found by projected gradient ascent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.sensitivity import one_float_tensor
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.attacks import Norm, check_attack, projected_ascent


class AdversarialTraining(Method):
    """Replace every batch by one that was changed, within a radius, to make the loss large.

    Use it where inputs may be attacked: of all defences that give no proof it has lasted best. It costs clean accuracy,
    several times the training time, and robust accuracy over-fits: keep the best epoch by attacked validation data, or
    add `AWP`. `TRADES` trades clean accuracy for robustness by a parameter.

        min_w mean_i max_{||x' - x_i|| <= radius} l(f(x'), y_i),   x' by steps of  x' <- x' + a radius sign(dl/dx')

    radius: in units of the inputs as the model gets them, 8/255 for images in [0, 1]; step_size: a, as a share of the
    radius, 0.25; steps: 7; norm: "inf" or "2", for which steps go along the gradient; valid: the least and greatest
    value of an input, (0, 1) for images; random_start: begin at a random point within the radius. Defaults are those
    of the paper's CIFAR-10 experiments but for `valid`, which depends on how you scale your inputs.

    The fast gradient sign method is steps=1, step_size=1, random_start=False (Goodfellow et al. 2014, arXiv 1412.6572);
    with step_size=1.25 and the random start it is the fast training of Wong, Rice, Kolter 2020, arXiv 2001.03994.
    Inputs are attacked before any mixing, on the labels as given. The network is attacked as it trains: dropout drops,
    batch norm takes the statistics of the batch and moves no running ones while the attack is looked for.

    Cost: a forward and a backward pass a step. Reference: Madry et al. 2017, arXiv 1706.06083.

    >>> recipe = tikhon.Recipe(tikhon.AdversarialTraining(radius=8 / 255, valid=(0.0, 1.0)))
    """

    card = Card(
        title="Towards Deep Learning Models Resistant to Adversarial Attacks",
        authors="Madry, Makelov, Schmidt, Tsipras, Vladu",
        year=2017,
        arxiv="1706.06083",
        problems=("robustness",),
        formula=r"\min_w \tfrac1n\sum_i \max_{\lVert x'-x_i\rVert\le\epsilon} \ell(f_w(x'), y_i)",
        claim="Training on the worst inputs of a strong first-order attack makes networks resist all such attacks.",
        helps="Attacks within a known radius.",
        hurts="Clean accuracy; training time; small data sets, where robust accuracy over-fits.",
        cost="A forward and a backward pass a step of the attack.",
        neutral="radius=0",
    )
    slots = {"batch": "augment"}
    exempt = {
        "accumulation": "each micro-batch draws starting points of its own",
        "permutation": "starting points belong to the rows of a batch",
    }

    def __init__(
        self,
        radius: Strength = 8 / 255,
        step_size: Strength = 0.25,
        steps: int = 7,
        norm: Norm = "inf",
        valid: tuple[float, float] | None = None,
        random_start: bool = True,
    ) -> None:
        super().__init__()
        self.radius = checked("radius", radius, low=0.0)
        self.step_size = checked("step_size", step_size, low=0.0)
        check_attack(steps, norm, valid)
        self.steps, self.norm, self.valid, self.random_start = steps, norm, valid, random_start

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        radius = step.value(self.radius)
        if radius == 0.0:
            return inputs, target
        clean = one_float_tensor(inputs, self.key)

        def losses(changed: Tensor) -> Tensor:
            output = step.forward(changed)
            step.loss.refuse(output, target.value)
            return weighted_losses(step.loss, output, target)[0]

        start = torch.zeros_like(clean)
        if self.random_start:
            generator = step.generator(clean.device)
            start.uniform_(-radius, radius, generator=generator)
        size = step.value(self.step_size) * radius
        return projected_ascent(losses, clean, start, radius, size, self.steps, self.norm, self.valid), target
