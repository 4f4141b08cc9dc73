"""Co-teaching: two networks train side by side, each on the samples that the other finds easy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.passes import RandomState, frozen_statistics
from tikhon.core.step import Step, seed_for
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms


def small_loss(losses: Tensor, forget_rate: float) -> Tensor:
    """1 for the samples of smallest loss, all but the share `forget_rate`, and 0 for the others.

    losses: (B,); forget_rate: in [0, 1); of the samples kept there is at least one. Returns (B,), in the same type.
    Source: Han et al. 2018, arXiv 1804.06872, algorithm 1.

    >>> small_loss(torch.tensor([3.0, 1.0, 2.0, 4.0]), 0.25)
    tensor([1., 1., 1., 0.])
    """
    kept = max(1, int((1.0 - forget_rate) * len(losses) + 1e-9))  # 0.7 of 10 is 7, not 6.999
    chosen = losses.detach().topk(kept, largest=False).indices
    return torch.zeros_like(losses.detach()).scatter(0, chosen, 1.0)


class CoTeaching(Method):
    """Train a second network beside the model, and each of them on the samples of small loss under the other.

    Use it where many labels are wrong, symmetric or not: a network learns right labels first, and what one of the two
    takes for right in error the other does not share. Not without an idea of how many are wrong, nor for rare classes,
    whose samples are lost with the wrong ones.

        R = tau min(epoch / gradual, 1),   keep the share 1 - R of smallest loss of every batch
        loss = mean of the model's over the peer's choice + mean of the peer's over the model's choice

    forget_rate: tau, in [0, 1), the share of wrong labels, 0.2 by default; 0 is plain training without a peer; gradual:
    over how many epochs the rate rises, 10 as published (the training loop must say when an epoch ends); peer: the
    second network, None for a copy of the model with weights drawn anew. It trains with the model, in batches as the
    model gets them, by the user's optimizer, as parameters `co_teaching_*` of the model, and is gone after export.
    What other methods do to the model's layers they do not do to it.

    Cost: a second network: twice the time and twice the memory.
    Reference: Han, Yao, Yu, Niu, Xu, Hu, Tsang, Sugiyama 2018, arXiv 1804.06872.

    >>> recipe = tikhon.Recipe(tikhon.CoTeaching(forget_rate=0.4))
    """

    card = Card(
        title="Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels",
        authors="Han, Yao, Yu, Niu, Xu, Hu, Tsang, Sugiyama",
        year=2018,
        arxiv="1804.06872",
        problems=("noisy-labels",),
        formula=r"L = \ell_f(\text{small loss under } g) + \ell_g(\text{small loss under } f)",
        claim="Far more accurate than training on noisy labels, up to 50% of them wrong.",
        helps="Strong label noise of about known strength.",
        hurts="Rare classes and hard samples, which have large losses too.",
        cost="A second network, trained beside the first.",
        neutral="forget_rate=0",
    )
    slots = {"prepare": "replace", "targets": "smooth", "export": "prune"}
    needs = frozenset({"classes", "plain weights"})  # the copy is of the network as it was written
    exempt = {"accumulation": "the samples of a micro-batch are chosen among themselves"}

    def __init__(self, forget_rate: Strength = 0.2, gradual: int = 10, peer: nn.Module | None = None) -> None:
        super().__init__()
        if isinstance(gradual, bool) or not isinstance(gradual, int) or gradual < 1:
            raise TikhonError(f"gradual must be a positive integer, a number of epochs, not {gradual!r}.")
        self.forget_rate = checked("forget_rate", forget_rate, low=0.0, high=0.99)
        self.gradual = gradual
        # In a tuple: as a submodule it would be saved twice, for its parameters belong to the model.
        self._peer: tuple[nn.Module, ...] = () if peer is None else (peer,)
        self._names: dict[str, str] = {}  # of the peer's parameters -> of the model's
        self._output: Tensor | None = None  # of the peer, from `targets` to `terms`
        self._weights: list[Tensor | None] = []  # of the samples, before those of the choice

    def check(self, model: nn.Module) -> None:
        for name, module in model.named_modules() if not self._peer else ():
            if module._parameters and _reset(module) is None:
                raise TikhonError(
                    f"{self.key} cannot draw the weights of {name or 'the model'} ({type(module).__name__}) anew: it "
                    "has no reset_parameters. Give a second network, built as the first but with another seed: peer=."
                )

    def prepare(self, model: nn.Module) -> None:
        if not self._peer:
            self._peer = (_drawn_anew(model, seed_for(self.key, "peer")),)
        for number, (name, parameter) in enumerate(self._peer[0].named_parameters()):
            self._names[name] = f"co_teaching_{number}"
            model.register_parameter(self._names[name], parameter)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        for peer in self._peer:
            peer._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def targets(self, output: Tensor, target: Target, step: Step) -> Target:
        self._output, self._weights = None, [part.weight for part in target.parts]
        if step.value(self.forget_rate) == 0.0:
            return target
        self._output = self._pass(step)
        chosen = self._chosen(self._output, target, step)
        return target.weighted(chosen * (len(chosen) / chosen.sum()))  # their mean, whatever the total is

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.forget_rate) == 0.0:
            return {}
        peer, self._output = self._output, None
        if peer is None:  # a repeated pass
            peer = self._pass(step)
        parts = zip(target.parts, self._weights, strict=True)
        target = replace(target, parts=tuple(replace(part, weight=weight) for part, weight in parts))
        chosen = self._chosen(output, target, step)
        losses, mass = weighted_losses(step.loss, peer, target)
        counted = chosen if mass is None else chosen * mass
        return {"peer": Term((losses * chosen).sum() / counted.sum().clamp_min(1e-12), per_sample=False)}

    def _pass(self, step: Step) -> Tensor:
        """The peer's output for the batch as the model gets it. It is never evaluated: running statistics stay."""
        peer = self._peer[0].train()
        # Looked up late: a wrapper may have replaced the model's parameters.
        leaves = {name: getattr(step.model, own) for name, own in self._names.items()}

        def called(*args: Any, **words: Any) -> Any:
            return torch.func.functional_call(peer, leaves, args, words)

        with frozen_statistics(peer):
            return step.output(called, step.inputs)

    def _chosen(self, output: Tensor, target: Target, step: Step) -> Tensor:
        """What the other network is to learn from: 1 or 0 for every sample, (B,)."""
        losses, mass = weighted_losses(step.loss, output.detach(), target)
        if mass is not None:
            losses = (losses / mass).where(mass > 0, torch.inf)
        rate = step.value(self.forget_rate) * min(step.epoch / self.gradual, 1.0)
        return small_loss(losses, rate)

    def export(self, model: nn.Module) -> nn.Module:
        for name in self._names.values():
            delattr(model, name)
        return model


def _reset(module: nn.Module) -> Callable[[], None] | None:
    """What draws a layer's own weights."""
    return getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))


def _drawn_anew(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the model with other initial weights; the global generators stay as they were."""
    peer, device = copy.deepcopy(model), next(model.parameters()).device
    before = RandomState.now(device)
    RandomState.of_seed(seed, device).restore()
    try:
        for module in peer.modules():
            reset = _reset(module)
            if reset is not None:
                reset()
    finally:
        before.restore()
    return peer
