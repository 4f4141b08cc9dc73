"""Self-tuning networks: weights that know how they would respond to other hyperparameters, which follow gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.export import example_of
from tikhon.core.inserted import At
from tikhon.core.passes import eval_mode
from tikhon.core.target import Target
from tikhon.tuning.base_loss import BaseLoss, refuse_nonfinite, rows_of
from tikhon.tuning.effect_set import EffectSet
from tikhon.tuning.effects import Effect
from tikhon.tuning.perturbation import Hyperparameters, refuse_foreign
from tikhon.tuning.response_surgery import exported, layers_at, make_responding

__all__ = ["SelfTuningNetwork"]

card = Card(
    title="Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions",
    authors="MacKay, Vicol, Lorraine, Duvenaud, Grosse",
    year=2019,
    arxiv="1903.03088",
    problems=("overfitting",),
    formula=r"\min_\phi E f(\lambda+\epsilon, \hat w),\ \min_\lambda F(\hat w),\ \hat W_\phi = W + (A\lambda)\odot V",
    claim="Schedules of hyperparameters, found in one training, beat fixed values and other searches.",
    helps="Rates of dropout, noise and augmentation, discrete ones too, that a training loss has no gradient for.",
    hurts="Few steps; learning rates and other settings of the optimizer, which it cannot tune; small validation sets.",
    cost="Two products a layer in place of one, and every second step a pass on validation data; twice the weights.",
    neutral="",
    kind="tuner",
)


class SelfTuningNetwork(nn.Module):
    """Turn a network into one that tunes its own regularisation while it trains, and turn it back afterwards.

    Use it for what enters non-linearly or discretely: dropout, noise, label smoothing, augmentation, weight decay. The
    layers learn, from hyperparameters that are perturbed for every sample, how their best weights depend on these;
    then validation loss has a gradient. Not for the learning rate or the architecture, nor with few steps.

        training:    min over weights       E_e f(l + s e, w(l + s e)),     e ~ N(0, 1) for every sample
        validation:  min over l and s       E_e F(w(l + s e)) - entropy H,  H the entropy of the perturbations

    model: changed in place, so before the optimizer is made; effects: what is tuned, of `tikhon.tuning.effects` and
    `tikhon.tuning.augmentations`; base: the loss function of the task; where: names or globs of the layers that
    respond, by default every plain `nn.Linear`, `nn.Conv1d` and `nn.Conv2d`; warm_up: training steps before the first
    tuning, best until over-fitting begins: before, less regularisation looks better; every: training steps for each
    tuning step, 2 in the official code; spread: s at first, on the unconstrained scale, 0.5 there; entropy: its weight,
    1e-5 there, or None to keep s; learning_rate: of Adam, which moves l and s, 3e-3 there, for hundreds of epochs: with
    few steps they get nowhere unless it is larger; seed: of all draws.

    `loss(x, y)` is what training calls backward on; where `due` says so, `tune(x, y)` takes a step on validation
    data. `log()` says where hyperparameters are, `state_dict()` resumes to the bit together with your optimizer's, and
    `export()` folds the response at the current ones into a plain network. In eval mode the network is that one.
    One process; samples must stay the first axis throughout; no gradient checkpointing.

    Layers see the distance of hyperparameters from their start, and respond with factors that begin at 0: the network
    begins as the plain one. The official code draws these factors, and scales W by one more learned number.

    Cost: two products a layer and training step; a validation pass every second step; twice the weights.
    Reference: MacKay, Vicol, Lorraine, Duvenaud, Grosse 2019, arXiv 1903.03088.

    >>> from tikhon.tuning.effects import TunedDropout
    >>> from tikhon.tuning.hyperparameters import Rate
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> tuner = tikhon.SelfTuningNetwork(model, [TunedDropout(Rate(0.05, high=0.9), at="1")])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> x, y = torch.randn(32, 8), torch.randint(3, (32,))
    >>> for step in range(4):
    ...     optimizer.zero_grad()
    ...     tuner.loss(x, y).backward()
    ...     optimizer.step()
    ...     if tuner.due:
    ...         _ = tuner.tune(x, y)  # the loss on validation data
    >>> plain = tuner.export()
    """

    def __init__(
        self,
        model: nn.Module,
        effects: Sequence[Effect],
        *,
        base: Any = F.cross_entropy,
        where: At | None = None,
        warm_up: int = 0,
        every: int = 2,
        spread: float = 0.5,
        entropy: float | None = 1e-5,
        learning_rate: float = 3e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, count, least in (("warm_up", warm_up, 0), ("every", every, 1)):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise TikhonError(f"{name} must be a whole number of steps, at least {least}, not {count!r}.")
        self._effects = EffectSet(effects, seed)
        self._base = BaseLoss(base)
        found = layers_at(model, where)
        self._effects.check(model)
        self.model, self.warm_up, self.every = model, warm_up, every
        origin = torch.tensor([one.origin for one in self._effects.tuned.values()]).to(next(found[0].parameters()))
        self.hyperparameters = Hyperparameters(origin, spread, entropy, learning_rate)
        self._effects.place(model)
        draws = self._effects.generator("directions", 0, torch.device("cpu"))
        self._layers = [make_responding(one, self.hyperparameters, draws) for one in found]
        self._example: Any = None
        self.steps = self.tunings = 0
        """How many training losses, and how many tuning steps, there were so far."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network at the current hyperparameters."""
        return self.model(*args, **kwargs)

    @property
    def due(self) -> bool:
        """Whether a tuning step is to follow the training step just done."""
        after = self.steps - self.warm_up
        return after > 0 and after % self.every == 0

    def loss(self, inputs: Any, target: Tensor) -> Tensor:
        """The training loss, to call backward on, every sample at hyperparameters of its own.

        inputs: as the model takes them, samples first; target: as the base loss takes it. Without gradient or in eval
        mode this is the plain base loss at the current hyperparameters, and moves nothing.
        """
        if not (torch.is_grad_enabled() and self.model.training):
            return self._base.plain(self.model, inputs, target)
        self._refuse_finished()
        rows = rows_of(inputs, target)
        generator = self._effects.generator("perturbation", self.steps, target.device)
        drawn = self.hyperparameters.perturbed(rows, generator).detach()
        values = self._effects.values(drawn)
        with (
            self._effects.batch(inputs, Target.of(target), values, self.steps) as (changed, aim),
            self.hyperparameters.at(drawn),
        ):
            output = self._base.output(self.model, changed, target)
            penalty = self._effects.penalty(self._layers, values)
        aim = self._effects.targets(output, aim, self._base.loss, values)
        loss = self._base.changed(output, aim, penalty)
        refuse_nonfinite(loss, self.steps)
        if self._example is None:
            self._example = example_of(inputs)
        self.steps += 1
        return loss

    def tune(self, inputs: Any, target: Tensor) -> Tensor:
        """One step of the hyperparameters on validation data; returns their loss there, detached.

        Weights and their gradients stay as they are. The model computes in eval mode: no dropout, no augmentation.
        """
        self._refuse_finished()
        state, rows = self.hyperparameters, rows_of(inputs, target)
        draws = self._effects.generator("validation", self.tunings, target.device)
        drawn = state.value if state.entropy is None else state.perturbed(rows, draws)
        with eval_mode(self.model), torch.enable_grad(), state.at(drawn):
            loss = self._base.frozen(self.model, inputs, target)
            refuse_nonfinite(loss, self.tunings)
            state.move(loss)
        self.tunings += 1
        return loss.detach()

    def log(self) -> dict[str, float]:
        """Numbers for a tracker: every hyperparameter, and the spread of its perturbations on the unconstrained scale.

        Reading them waits for the device.
        """
        return self._effects.log(self.hyperparameters.value, self.hyperparameters.spread)

    def export(self) -> nn.Module:
        """The network as plain torch, the response at the current hyperparameters folded in, its outputs compared."""
        self._refuse_finished()
        layers, self._layers = self._layers, []
        self._effects.remove()
        return exported(self.model, layers, self._example)

    def get_extra_state(self) -> dict[str, Any]:
        """Counters, and what tells one network's state from another's."""
        return {"steps": self.steps, "tunings": self.tunings, **self._effects.identity}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.steps, self.tunings = state["steps"], state["tunings"]

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Go on from what `state_dict` returned; the state of another network is refused and changes nothing."""
        self._refuse_finished()
        refuse_foreign(self.state_dict(), state)
        return super().load_state_dict(state, strict, assign)

    def _refuse_finished(self) -> None:
        if not self._layers:
            raise TikhonError("This network was exported: it is plain, and tunes nothing any more.")
