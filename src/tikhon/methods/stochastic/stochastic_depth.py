"""Stochastic depth: leave out random residual blocks of a batch, so that deep networks train as shallower ones."""

from __future__ import annotations

from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.inserted import At, modules_at
from tikhon.core.method import Method
from tikhon.core.passes import RandomState, frozen_statistics
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def linear_decay(blocks: int, p: float) -> list[float]:
    """The chance that each block is left out, l / L p for l = 1..L (Huang et al. 2016, arXiv 1603.09382, eq. 4).

    blocks: L; p: of the last block, in [0, 1].

    >>> linear_decay(4, 0.5)
    [0.125, 0.25, 0.375, 0.5]
    """
    return [number / blocks * p for number in range(1, blocks + 1)]


class Skipped:
    """What a block is told for the pass: whether it is left out, and how much of it counts where it is not."""

    def __init__(self, branch: bool, by_row: bool, name: str) -> None:
        self.branch, self.by_row, self.name = branch, by_row, name
        self.rate: float = 0.0
        self.out = False
        self.confirmed = False


def _forward(block: nn.Module, inputs: Tensor, *args: Any, **options: Any) -> Any:
    """In place of the block's own forward."""
    plan: Skipped = block.skipped  # type: ignore[assignment]
    if not block.training or plan.rate == 0.0:
        return type(block).forward(block, inputs, *args, **options)
    if plan.out:
        if not plan.confirmed:
            _confirm(plan, inputs, _without_traces(block, inputs, *args, **options))
        return torch.zeros_like(inputs) if plan.branch else inputs
    outputs = type(block).forward(block, inputs, *args, **options)
    if not plan.confirmed:
        _confirm(plan, inputs, outputs)
    change = outputs if plan.branch else outputs - inputs
    change = change * _kept_rows(inputs, 1.0 - plan.rate) if plan.by_row else change / (1.0 - plan.rate)
    return change if plan.branch else inputs + change


def _kept_rows(inputs: Tensor, share: float) -> Tensor:
    """A factor for each sample, (B, 1, ...): 1 / share with a chance of `share`, and else 0."""
    return inputs.new_empty(len(inputs), *[1] * (inputs.ndim - 1)).bernoulli_(share).div_(share)


def _without_traces(block: nn.Module, inputs: Tensor, *args: Any, **options: Any) -> Any:
    """One look at what a block returns that is left out: no statistics, no random numbers, no graph."""
    random = RandomState.now(inputs.device)
    try:
        with torch.no_grad(), frozen_statistics(block):
            return type(block).forward(block, inputs, *args, **options)
    finally:
        random.restore()


def _confirm(plan: Skipped, inputs: Tensor, outputs: Any) -> None:
    if not isinstance(outputs, Tensor) or outputs.shape != inputs.shape:
        found = f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TikhonError(
            f"Stochastic depth leaves out blocks that keep the shape of their input, and {plan.name} makes {found} of "
            f"{tuple(inputs.shape)}: leave it out of at=."
        )
    plan.confirmed = True


class StochasticDepth(Method):
    """Leave out random residual blocks, a new draw for every batch; what is left out is not computed.

    Use it in deep residual networks: training is cheaper by the share left out, gradients reach the first blocks, and
    the network is an ensemble of shallower ones. Not in networks of few blocks, nor in short training.

        x <- x + b / (1 - p_l) f_l(x),   b ~ Bernoulli(1 - p_l),   p_l = l / L p for block l of L

    at: which modules, names or globs of the parts of names, in order of depth; each keeps the shape of its input. By
    default they are whole blocks, x + f(x) with the shortcut inside ("layers.*" of a transformer, "layer1.[1-9]*" of a
    ResNet, not the blocks that change the shape): left out, such a block is its input, and f is what it changes. With
    `branch=True` they are the f alone, which the model adds to its shortcut: left out, such a module returns zeros. p:
    of the last block, in [0, 0.99]; 0.5 in the paper. mode: "batch" leaves a block out for the whole batch; "row" draws
    for each sample, which costs as much as no stochastic depth.

    The paper multiplies f by 1 - p_l in evaluation; here what is kept is divided by it in training, as in today's
    libraries, and evaluation and the exported model are the plain network. A block that ends with an activation is
    scaled as a whole, the activation inside f. Weights of what is left out get no gradient: under DDP give
    find_unused_parameters=True.

    Cost: less than plain training, by p (L + 1) / (2 L) of the blocks. Draws of mode "row" come from torch's global
    generator.
    Reference: Huang, Sun, Liu, Sedra, Weinberger 2016, arXiv 1603.09382.

    >>> recipe = tikhon.Recipe(tikhon.StochasticDepth(at="layers.*", p=0.2))
    """

    card = Card(
        title="Deep Networks with Stochastic Depth",
        authors="Huang, Sun, Liu, Sedra, Weinberger",
        year=2016,
        arxiv="1603.09382",
        problems=("overfitting", "speed", "stability"),
        formula=r"x \leftarrow x + \frac{b_l}{1-p_l} f_l(x),\quad p_l = \frac{l}{L}\, p",
        claim="Shorter training and lower test error of very deep residual networks, beyond 1200 layers.",
        helps="Many residual blocks, long training.",
        hurts="Few blocks, short training, networks that underfit.",
        cost="Less than plain training: blocks that are left out are not computed.",
        neutral="p=0",
    )
    slots = {"prepare": "gate", "batch": "augment", "export": "merge"}
    exempt = {
        "accumulation": "every micro-batch draws its own blocks",
        "shards": "processes leave out different blocks, and the sharding waits for all of them",
        "compile": "which blocks are computed is decided outside of the graph: every choice would be one of its own",
    }

    def __init__(
        self, at: At, p: Strength = 0.5, branch: bool = False, mode: Literal["batch", "row"] = "batch"
    ) -> None:
        super().__init__()
        if mode not in ("batch", "row"):
            raise TikhonError(f"mode must be 'batch' or 'row', not {mode!r}.")
        self.p = checked("p", p, low=0.0, high=0.99)
        self.at, self.branch, self.mode = at, branch, mode
        self._blocks: list[Skipped] = []

    def check(self, model: nn.Module) -> None:
        for name, block in modules_at(model, self.at, self.key).items():
            if "forward" in vars(block):
                raise TikhonError(f"{self.key}: the forward method of {name} has been replaced already.")

    def prepare(self, model: nn.Module) -> None:
        self.check(model)  # again: another of its kind may have been here since
        for name, block in modules_at(model, self.at, self.key).items():
            plan = Skipped(self.branch, self.mode == "row", name)
            self._blocks.append(plan)
            block.skipped = plan  # type: ignore[assignment]
            block.forward = MethodType(_forward, block)  # bound to the block, so that it is copied with it

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        rates = linear_decay(len(self._blocks), step.value(self.p))
        for block, rate in zip(self._blocks, rates, strict=True):
            block.rate = rate
        if self.mode == "batch":
            # Drawn on the CPU: what is computed is decided without waiting for the device.
            draws = torch.rand(len(rates), generator=step.generator()).tolist()
            for block, draw in zip(self._blocks, draws, strict=True):
                block.out = draw < block.rate
        return inputs, target

    def export(self, model: nn.Module) -> nn.Module:
        for block in model.modules():
            if isinstance(getattr(block, "skipped", None), Skipped):
                del block.forward, block.skipped
        return model
