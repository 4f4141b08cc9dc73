"""Recipe: a set of methods and a base loss, the one object that a training loop talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from tikhon.core import export, log
from tikhon.core.batches import map_tensors
from tikhon.core.combine import During
from tikhon.core.errors import TikhonError
from tikhon.core.hooks import StepHooks, attachable
from tikhon.core.losses import Loss, as_loss
from tikhon.core.memory import PerSampleMemory, Staged
from tikhon.core.method import Method
from tikhon.core.objective import Objective, Total
from tikhon.core.parameters import Selected, copy_into, every_parameter
from tikhon.core.plan import Plan
from tikhon.core.reading import Reading, read_output
from tikhon.core.run import Run
from tikhon.core.setup import refuse_model, refuse_optimizers, refuse_shards, refuse_unknown_length
from tikhon.core.shards import holds_shards, let_go
from tikhon.core.state import load_state, save_state
from tikhon.core.target import rows_alone
from tikhon.core.training import Batch, Training
from tikhon.core.tuning import MakeOptimizer, Tuning
from tikhon.core.window import Window


class Recipe:
    """Methods that regularise one training, in whatever loop it runs.

    methods: any sensible set, in any order; `base`: the loss function of the task: `F.cross_entropy` (the default),
    another loss of torch, your own function (output, target) -> one loss a sample, (B,), or `no_loss` where the terms
    of methods are everything; `seed`: from which every random draw of the methods follows. `inputs`, `target`, `index`
    and `output` say where these are in your batches and model outputs: keys, or functions of the batch (of the output).

    >>> recipe = Recipe()
    >>> model = recipe.prepare(nn.Linear(3, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> _ = recipe.attach(optimizer)
    >>> recipe.loss(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])).backward()
    >>> optimizer.step()
    >>> recipe.step
    1
    """

    def __init__(
        self,
        *methods: Method | During,
        base: Any = F.cross_entropy,
        seed: int = 0,
        inputs: str | Callable[[Any], Any] | None = None,
        target: str | Callable[[Any], Any] | None = None,
        index: str | Callable[[Any], Any] | None = None,
        output: str | Callable[[Any], Any] | None = None,
    ) -> None:
        self._base, smoothing = as_loss(base)
        self._run = Run(self._base, seed, read_output(output))
        self._plan = Plan(methods, self._run, self._base.kind)
        for entry in self._plan.of("loss_function"):
            self._run.loss = entry.method.loss_function(self._run.loss)
        self._reading = Reading(inputs, target, index, labelled=self._run.loss.kind != "output")
        self._held_out = Reading(inputs, target, index, labelled=self._base.kind != "output")
        smoothing = smoothing if self._run.loss.kind == "classes" else 0.0  # a method may have taken the labels away
        self._objective = Objective(self._plan, self._run, self._run.loss, smoothing)
        self._memories = [
            module for entry in self._plan.entries for module in entry.method.modules() if isinstance(module, Staged)
        ]
        self._window = Window(self._memories, self._run)
        self._training = Training(self._plan, self._run, self._objective, self._window)
        self._run.names = self._plan.learned()
        self._run.clock.learned = {strength: strength.initial for strength in self._run.names}
        self._added: list[Selected] = []
        self._hooks: StepHooks | None = None
        self._wrapper: Any = None

    @property
    def methods(self) -> dict[str, Method]:
        """The methods by key."""
        return {entry.key: entry.method for entry in self._plan.entries}

    @property
    def model(self) -> nn.Module | None:
        """The prepared model; None before `prepare`."""
        return self._run.model if self._run.prepared else None

    @property
    def step(self) -> int:
        """Optimizer steps that really happened."""
        return self._run.clock.number

    @property
    def epoch(self) -> int:
        """Epochs that have ended."""
        return self._run.clock.epoch

    @property
    def progress(self) -> float:
        """Share of training done, in [0, 1]."""
        return self._run.clock.progress

    # Set-up ----------------------------------------------------------------------------------------------------------

    def prepare(self, model: nn.Module, *, samples: int | None = None) -> nn.Module:
        """Check the model, then change it in place and return it. Before compiling, wrapping and the optimizer.

        samples: how many training samples there are, for methods that remember something of each.
        """
        if self._run.prepared:
            raise TikhonError("This recipe is prepared already; a second model needs a recipe of its own.")
        refuse_model(self._plan, model, samples)
        before = {id(parameter) for parameter in model.parameters()}
        self._run.adopt(model)
        for entry in self._plan.of("prepare"):
            with self._run.during("prepare"):
                entry.method.prepare(model)
        for entry in self._plan.entries:
            for name in entry.method.taps(model):
                self._run.taps.place(model, name, entry.key)
        self._added = [one for one in every_parameter(model) if id(one.leaf) not in before]
        for memory in self._memories:
            if samples is not None and isinstance(memory, PerSampleMemory):
                memory.reserve(samples)
        self._training.begin(model, samples)
        return model

    def attach(
        self, *optimizers: Any, model: Any = None, steps: int | None = None, epochs: int | None = None
    ) -> Recipe:
        """Ride on the optimizers' own steps. After prepare, compile and wrap; before a saved state is loaded.

        model: the compiled or distributed wrapper to call; steps, epochs: how long training is, for schedules.
        """
        run = self._run
        if self._hooks is not None:
            raise TikhonError("The recipe is attached already; call recipe.detach() first.")
        inner = attachable(optimizers)
        refuse_optimizers(inner, run.model, self._added)
        refuse_unknown_length(self._plan, steps, epochs)
        refuse_shards(self._plan, run.model)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if distributed else 1
        if world > 1 and model is None:
            raise TikhonError(
                f"{world} processes train together: pass the wrapper that synchronises gradients, "
                "recipe.attach(optimizer, model=ddp_model)."
            )
        run.rank, run.world = (torch.distributed.get_rank() if distributed else 0), world
        run.sharded = holds_shards(run.model)
        run.reparameterised = any(map(parametrize.is_parametrized, run.model.modules()))
        run.clock.steps, run.clock.epochs = steps, epochs
        run.own(inner)
        self._wrapper = model
        for entry in self._plan.entries:
            entry.method.to(run.device)
        watching = self._plan.entries  # where no method acts, a skipped step leaves nothing to forget
        self._window.watch([one.leaf for one in run.select("all")] if watching else ())
        self._hooks = StepHooks(inner, self._training)
        return self

    def tune(
        self, validation_batches: Iterable[Any], every: int = 10, optimizer: MakeOptimizer | None = None
    ) -> Recipe:
        """Let the strengths that are `Learned` follow the validation loss, as `tikhon.core.tuning` says. Before
        training, in a loop of your own as with `fit` and trainers, and before a saved state is loaded.

        validation_batches: a loader or a list, of batches as in training, held out from it; every: at how many
        optimizer steps a tuning step is taken; optimizer: a function that makes the torch optimizer of the strengths'
        logarithms, Adam with rate 0.1 by default.

        >>> strength = tikhon.Learned(1e-3, 1e-6, 1.0)
        >>> recipe = Recipe(tikhon.L2(strength)).tune([(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]))])
        """
        if self._training.tuning is not None:
            raise TikhonError("This recipe is tuned already: call tune once.")
        self._training.tuning = Tuning(
            self._run, self._objective, self._base, self._held_out, validation_batches, every, optimizer
        )
        return self

    # The training step -----------------------------------------------------------------------------------------------

    def loss(
        self,
        inputs: Any,
        target: Any = None,
        *,
        index: Tensor | None = None,
        weight: Tensor | None = None,
        total: Total | None = None,
        model: Any = None,
    ) -> Tensor:
        """The loss to call backward on: a scalar. In place of `criterion(model(inputs), target)`.

        inputs, target: a batch, or the whole batch as the loader gave it in `inputs`; index: (B,) sample ids;
        weight: (B,) sample weights; total: the mass of the whole optimizer step over micro-batches and processes (sum
        of weights or of counted positions), so that micro-batch losses add up; processes', whose gradients a wrapper
        averages, add up as well; model: the wrapper to call, if it is not the attached one. Without gradient or in eval
        mode this is the plain base loss, and moves nothing. Where the loss in training is one of the output alone
        (`OutputLoss`), training needs no target.
        """
        run, bare = self._run, self._run.model
        if target is None:
            inputs, target, index = self._reading.read(inputs, target, index)
        called = model if model is not None else self._wrapper if self._wrapper is not None else bare
        training = torch.is_grad_enabled() and bare.training
        if target is None:
            if not training and self._base.kind != "output":
                raise TikhonError("Without gradient or in eval mode this is the base loss, and that needs a target.")
            target = rows_alone(inputs)
        if not training:
            output = run.output(called, inputs)
            self._base.refuse(output, target)
            return self._base.mean(output, target)
        if self._hooks is None:
            raise TikhonError("The recipe is not attached: call recipe.attach(optimizer) before training.")
        self._hooks.reset()
        return self._training.loss(Batch(called, inputs, target, index, weight, total))

    def skip_step(self) -> None:
        """Say that a step was tried and did not happen: a gradient scaler found infinities.

        Only where gradients are zeroed after the next loss, or in several processes zeroed in place. Else the recipe
        sees it by itself.
        """
        self._training.skipped()

    def end_epoch(self) -> None:
        """Say that an epoch has ended."""
        self._training.end_epoch()

    def end_task(self, batches: Iterable[Any] | None = None) -> None:
        """Say that a task of a sequence has been learned, for methods that keep it while the next one is.

        batches: the task's data as your loader gives them, for methods that look at them again.
        """
        run = self._run
        run.restore()

        def pairs() -> Iterator[tuple[Any, Tensor]]:
            for batch in () if batches is None else batches:
                inputs, target, _ = self._reading.read(batch, None, None)
                inputs = map_tensors(lambda values: values.to(run.device), inputs)
                yield inputs, rows_alone(inputs) if target is None else target.to(run.device)

        for entry in self._plan.of("task_end"):
            with run.during("task_end"), run.whole([entry.method]), torch.no_grad():
                entry.step.replay()
                entry.method.task_end(None if batches is None else pairs(), entry.step)

    # Looking in ------------------------------------------------------------------------------------------------------

    def explain(self) -> str:
        """Which method acts in which moment of the training step, in order."""
        return self._plan.explain()

    def log(self) -> dict[str, float]:
        """Numbers for a tracker, each with a name. Reading them waits for the device.

        `loss/PART`: the parts of the latest loss; `METHOD/STRENGTH`: the strengths in force; `sparsity`: the share of
        exact zeros among the weights that methods select with `where`. So far, where there are any: `skipped/steps`,
        steps tried in vain (gradients overflowed under a scaler, known once the next loss is computed), and
        `skipped/samples`, samples that methods left out, as often as they did; of learned strengths
        `METHOD/STRENGTH/at_bound`, for how many tuning steps on end it has been at a bound, and
        `skipped/hypergradients`, tuning steps without effect because a hypergradient was not finite.
        """
        parts: dict[str, Tensor | float] = {**self._objective.values, **self._window.penalty_values}
        return log.numbers(self._plan, self._run, parts, self._training.tuning)

    @property
    def criterion(self) -> Loss:
        """The loss function that the recipe trains with."""
        return self._run.loss

    def probabilities(self, output: Tensor) -> Tensor:
        """Class probabilities (B, K) of model outputs, by the loss function that the recipe trains with."""
        return self._run.loss.probabilities(output)

    # Saving ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that must survive, as tensors and plain values: loads with `weights_only=True`.

        As with torch, the tensors are those in use and change when training goes on: copy them to keep them in memory.
        """
        self._run.restore()
        return save_state(self._run, self.methods, self._training.tuning)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken. A foreign state is refused and nothing is changed."""
        self._run.restore()
        load_state(self._run, self.methods, state, self._training.tuning)
        self._window.resume()

    # At the end ------------------------------------------------------------------------------------------------------

    @contextmanager
    def deployed(self) -> Iterator[nn.Module]:
        """Inside, the model has the weights that export would give (averages); they return by copy."""
        run = self._run
        run.restore()
        averages: dict[str, Tensor] = {}
        for entry in self._plan.of("averages"):
            with run.whole([entry.method], moving=False):
                averages |= entry.method.averages()
        if run.sharded:
            let_go(run.model)
        chosen = [one for one in every_parameter(run.model) if one.key in averages] if averages else []
        trained = [one.leaf.detach().clone() for one in chosen]
        copy_into([one.leaf for one in chosen], [averages[one.key] for one in chosen])
        try:
            yield run.model
        finally:
            if run.sharded:
                let_go(run.model)
            copy_into([one.leaf for one in chosen], trained)

    def detach(self) -> None:
        """Take the hooks off the optimizers."""
        self._run.restore()
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None
        self._window.watch(())
        self._run.own(())

    def export(self) -> nn.Module:
        """The finished model as plain torch: averaged, merged, pruned, hooks gone, and its outputs compared."""
        self.detach()
        return export.export(self._run, self._plan, self._training.example, self.deployed)
