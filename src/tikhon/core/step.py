"""The step in hand: what a method may read of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tikhon.core.parameters import Selected, Where
from tikhon.core.passes import Passing
from tikhon.core.shards import whole_parameters
from tikhon.core.strength import Learned, Strength, resolve
from tikhon.core.taps import Feature
from tikhon.core.watched import watched

if TYPE_CHECKING:
    from tikhon.core.losses import Loss
    from tikhon.core.run import Run

ON_ALL_RANKS = frozenset({"parameter_terms", "gradients", "after_step", "epoch_end", "task_end", "prepare"})
"""Moments that run once per optimizer step: their draws are the same on every rank and for every micro-batch."""


class Clock:
    """Counters of training, in a plain object because every step reads them."""

    __slots__ = ("epoch", "epoch_steps", "epochs", "last_epoch_steps", "learned", "micro", "number", "steps")

    def __init__(self) -> None:
        self.number = 0  # optimizer steps that really happened
        self.epoch = 0
        self.micro = 0  # micro-batches seen since the last step
        self.epoch_steps = 0  # steps of this epoch
        self.last_epoch_steps = 0
        self.steps: int | None = None  # how long training is, if known
        self.epochs: int | None = None
        self.learned: dict[Learned, float] = {}  # what they are now

    @property
    def progress(self) -> float:
        """Share of training done, in [0, 1].

        Where only the number of epochs is known, the length of an epoch is taken from the one before: during the first
        epoch progress is 0.
        """
        if self.steps:
            return min(1.0, self.number / self.steps)
        if self.epochs:
            within = min(1.0, self.epoch_steps / self.last_epoch_steps) if self.last_epoch_steps else 0.0
            return min(1.0, (self.epoch + within) / self.epochs)
        return 0.0

    @property
    def epoch_progress(self) -> float:
        """Share of epochs begun, the current one included: 1 in the last epoch."""
        return min(1.0, (self.epoch + 1) / self.epochs) if self.epochs else 0.0

    def state(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("number", "epoch", "micro", "epoch_steps", "last_epoch_steps")}

    def load(self, state: Mapping[str, int]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def seed_for(*parts: object) -> int:
    """A 63-bit seed that is a pure function of `parts`."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Step:
    """What one method may read of the step in hand. Read-only; one object a method, alive as long as the recipe."""

    def __init__(self, run: Run, key: str) -> None:
        self._run = run
        self._key = key
        self._generators: dict[torch.device, torch.Generator] = {}
        self._seeded: dict[torch.device, tuple[object, ...]] = {}

    @property
    def number(self) -> int:
        """Optimizer steps that have happened."""
        return self._run.clock.number

    @property
    def epoch(self) -> int:
        """Epochs that have ended."""
        return self._run.clock.epoch

    @property
    def epochs(self) -> int | None:
        """How many epochs training has, if the recipe was told."""
        return self._run.clock.epochs

    @property
    def progress(self) -> float:
        """Share of training done, in [0, 1]."""
        return self._run.clock.progress

    @property
    def model(self) -> nn.Module:
        """The prepared model, without wrappers."""
        return self._run.model

    @property
    def inputs(self) -> Any:
        """The inputs of the batch in hand as the model gets them, with what methods changed in `batch`."""
        return self._run.inputs

    @property
    def loss(self) -> Loss:
        """The loss function of the task."""
        return self._run.loss

    def value(self, strength: Strength) -> float:
        """The strength as a number, the same all through one step."""
        return watched(strength, self._run) if isinstance(strength, Learned) else resolve(strength, self._run.clock)

    def graph_value(self, strength: Strength, device: torch.device) -> float | Tensor:
        """The strength for what is computed inside the model: a number, or for a schedule a tensor ().

        A number is part of a compiled graph: of a schedule there would be one graph for each of its values.
        """
        value = self.value(strength)
        return value if isinstance(strength, (int, float)) else torch.full((), float(value), device=device)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """The method's own random numbers on `device`.

        A pure function of recipe seed, method, moment, step, micro-batch and rank (of rank and micro-batch only where
        the moment acts on a batch): nothing to save, and no other method's draws move these. Every call in one moment
        continues the same stream.
        """
        run, device = self._run, torch.device(device)
        clock, moment = run.clock, run.moment
        local = (-1, -1) if moment in ON_ALL_RANKS else (clock.micro, run.rank)
        now = (run.seed, self._key, moment, clock.number, *local)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        if self._seeded.get(device) != now:
            self._generators[device].manual_seed(seed_for(*now))
            self._seeded[device] = now
        return self._generators[device]

    def replay(self) -> None:
        """Start the streams of this moment again; the engine calls it where a moment begins."""
        self._seeded.clear()

    def clean(self, output: Tensor) -> Tensor:
        """The output for the inputs as they came: `output` itself, detached, unless a method changed or mixed them.

        Changed inputs cost one extra pass without gradient, shared by all methods that ask. So do features that are
        mixed inside the model, which their target tells.
        """
        return self._run.clean(output)

    @property
    def passing(self) -> Passing:
        """Which pass is under way, for hooks inside the model: those that mix features act in passes of the loss."""
        return self._run.passing

    def forward(self, inputs: Any, redraw: bool = False) -> Any:
        """An extra pass with gradient: batch statistics that move no running ones, and no random number spent.

        redraw: dropout in the model draws masks of this pass alone, which follow from the method's own generator.
        """
        seed = int(torch.randint(2**62, (), generator=self.generator())) if redraw else None
        return self._run.extra_pass(inputs, seed)

    def forward_with_taps(self, inputs: Any) -> tuple[Tensor, Mapping[str, Feature]]:
        """An extra pass as `forward` makes it, and by name the features that the taps recorded in it."""
        return self._run.recorded_pass(inputs)

    def output(self, model: Callable[..., Any], inputs: Any) -> Tensor:
        """The prediction of `model`, or of a function in its place, as this recipe reads it."""
        return self._run.output(model, inputs)

    def read(self, output: Any) -> Any:
        """The prediction in what a model returned, as this recipe reads it."""
        return self._run.read_output(output)

    def tap(self, name: str) -> Feature:
        """The feature recorded at the module called `name` in the pass in hand."""
        return self._run.taps.feature(self._run.features, name)

    def select(self, where: Where) -> list[Selected]:
        """The trainable parameters that `where` names and an attached optimizer owns."""
        return self._run.select(where)

    def learning_rate(self, leaf: Tensor) -> float | Tensor:
        """The learning rate with which an attached optimizer moves this leaf."""
        return self._run.learning_rate(leaf)

    def whole(self) -> AbstractContextManager[object]:
        """Inside, the model is an ordinary one also where its parameters are sharded, for passes with other weights."""
        return whole_parameters(self._run.model, moving=False) if self._run.sharded else nullcontext()

    def gradients(self, loss: Tensor, where: Where) -> tuple[list[Selected], list[Tensor]]:
        """What `where` selects and `loss` depends on, and its gradients for the leaves. The graph is used up.

        Where parameters are sharded, gradients are whole and the mean over processes, and so are offsets for `perturb`.
        """
        return self._run.gradients(loss, where)

    def perturb(self, leaves: Sequence[Tensor], offsets: Sequence[Tensor]) -> None:
        """Add offsets to parameters in place until backward ends; they return by copy, whatever happens between."""
        self._run.perturb(leaves, offsets)


Inner = Callable[[], Tensor]
"""The loss as a function of the weights: the first call is the pass that writes state, further calls repeat it."""
