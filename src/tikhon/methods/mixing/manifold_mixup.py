"""Manifold mixup: mix pairs of samples at a random layer, their hidden features rather than their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tikhon.core.batches import first_tensor, mix_inputs
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.inserted import At, modules_at
from tikhon.core.method import Method
from tikhon.core.passes import Passing
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.random import beta


class ManifoldMixup(Method):
    """Mix the features of pairs of samples after a layer that is drawn anew for every batch, and their targets alike.

    Use it where MixUp helps and features are more alike than inputs: the classes become flat and far apart in every
    layer named. It needs long training. Not in networks of which every sample's features depend on the others'.

        k ~ uniform over the layers,  l ~ Beta(alpha, alpha),  h_k = l h_k(x_i) + (1 - l) h_k(x_j),
        loss = l loss(y_i) + (1 - l) loss(y_j)

    at: the layers, names of modules or globs of the parts of names ("layer[12]"), each called once in a pass and
    returning one tensor with a row for each sample; inputs: whether the input is one of them, as in the paper; not
    where it is token ids. alpha: at least 0; 2 in the paper, 0 is plain training. Mixing is for the loss alone: other
    methods' extra passes, evaluation and calls of your own see plain features.

    Cost: a permuted copy of the features. Reference: Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio 2019,
    arXiv 1806.05236.

    >>> recipe = tikhon.Recipe(tikhon.ManifoldMixup(at=("layer1", "layer2")))
    """

    card = Card(
        title="Manifold Mixup: Better Representations by Interpolating Hidden States",
        authors="Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio",
        year=2018,
        arxiv="1806.05236",
        problems=("overfitting", "calibration", "robustness"),
        formula=r"h_k = \lambda h_k(x_i) + (1-\lambda) h_k(x_j),\quad \lambda \sim \mathrm{Beta}(\alpha,\alpha)",
        claim="Lower test error and likelihood loss than mixup of inputs; smoother decision boundaries.",
        helps="Few samples, long training, over-confident predictions.",
        hurts="Short training, narrow layers in which mixed features mean something else.",
        cost="A permuted copy of the features.",
        neutral="alpha=0",
        example="at='2'",
    )
    slots = {"prepare": "gate", "batch": "mix", "export": "merge"}
    exempt = {
        "accumulation": "partners come from the same micro-batch",
        "permutation": "partners are drawn by their place in the batch",
    }

    def __init__(self, at: At, alpha: Strength = 2.0, inputs: bool = True) -> None:
        super().__init__()
        self.alpha = checked("alpha", alpha, low=0.0)
        self.at, self.inputs = at, inputs
        if not at and not inputs:
            raise TikhonError("ManifoldMixup needs layers to mix after: name some with at=.")
        self._layers: list[tuple[str, nn.Module]] = []
        self._handles: list[RemovableHandle] = []
        self._draw: tuple[str, nn.Module, Tensor, Tensor] | None = None  # layer, partners, share
        self._passing = Passing()
        self._mixed = 0

    def check(self, model: nn.Module) -> None:
        modules_at(model, self.at, self.key)

    def prepare(self, model: nn.Module) -> None:
        self._layers = list(modules_at(model, self.at, self.key).items())
        self._handles = [layer.register_forward_hook(self._mix) for _, layer in self._layers]

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._draw, self._passing, self._mixed = None, step.passing, 0
        alpha = step.value(self.alpha)
        if alpha == 0.0:
            return inputs, target
        generator, device = step.generator(), first_tensor(inputs).device
        share = beta(alpha, generator)
        permutation = torch.randperm(len(target), generator=step.generator(device), device=device)
        # On the CPU: which layer it is must be known without waiting for the device.
        place = int(torch.randint(len(self._layers) + self.inputs, (), generator=generator))
        if place < len(self._layers):
            # Share as a tensor: a number would be part of a compiled graph, and every batch would need one of its own.
            precision = torch.promote_types(next(step.model.parameters()).dtype, torch.float32)
            self._draw = (*self._layers[place], permutation, torch.full((), share, dtype=precision, device=device))
        else:
            inputs = mix_inputs(lambda values: torch.lerp(values[permutation], values, share), inputs, self.key)
        return inputs, target.mix(permutation, share)

    def _mix(self, module: nn.Module, args: Any, output: Any) -> Tensor | None:
        if self._draw is None or not module.training or not self._passing.of_loss:
            return None
        name, layer, permutation, share = self._draw
        if module is not layer:
            return None
        if not isinstance(output, Tensor) or len(output) != len(permutation):
            found = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise TikhonError(
                f"{self.key} mixes features with a row for each of {len(permutation)} samples, and {name} returns "
                f"{found}: name another module with at=."
            )
        self._mixed += 1
        return torch.lerp(output[permutation], output, share.to(output.dtype))

    def remember(self, output: Tensor, target: Target, step: Step) -> None:
        """The pass is over: its target is mixed, and so its features must be, once."""
        if self._draw is not None and self._mixed != 1:
            raise TikhonError(
                f"{self.key} mixes what a module returns once in a pass, and {self._draw[0]} was called {self._mixed} "
                "times in train mode: name another module with at=."
            )

    def export(self, model: nn.Module) -> nn.Module:
        for handle in self._handles:
            handle.remove()
        return model
