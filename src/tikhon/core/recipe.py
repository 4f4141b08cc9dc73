"""Recipe: a set of methods and a base loss, the one object that a training loop talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from tikhon.core import export
from tikhon.core.batches import first_tensor, map_tensors
from tikhon.core.combine import During
from tikhon.core.errors import TikhonError
from tikhon.core.hooks import StepHooks, attachable
from tikhon.core.losses import as_loss
from tikhon.core.memory import PerSampleMemory
from tikhon.core.method import Method, strengths
from tikhon.core.objective import Objective, Total
from tikhon.core.parameters import copy_into, every_parameter
from tikhon.core.passes import RandomState, frozen_statistics, unwrapped
from tikhon.core.plan import Plan
from tikhon.core.reading import Reading, read_output
from tikhon.core.run import Run
from tikhon.core.state import load_state, save_state
from tikhon.core.strength import Schedule
from tikhon.core.target import Target
from tikhon.core.window import Window


class Recipe:
    """Methods that regularise one training, in whatever loop it runs.

    methods: any sensible set, in any order; `base`: the loss function of the task: `F.cross_entropy` (the default),
    another loss of torch, or your own function (output, target) -> one loss a sample, (B,); `seed`: from which every
    random draw of the methods follows. `inputs`, `target`, `index` and `output` say where these are in your batches and
    model outputs: keys, or functions of the batch (of the output).

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
        loss, smoothing = as_loss(base)
        self._reading = Reading(inputs, target, index)
        self._run = Run(loss, seed, read_output(output))
        self._plan = Plan(methods, self._run, loss.kind)
        for entry in self._plan.of("loss_function"):
            loss = entry.method.loss_function(loss)
        self._run.loss = loss
        self._base = as_loss(base)[0]
        self._objective = Objective(self._plan, self._run, loss, smoothing)
        self._window = Window([module for module in self._modules() if isinstance(module, PerSampleMemory)], self._run)
        self._needs_ids = any("ids" in entry.method.needs for entry in self._plan.entries)
        self._samples: int | None = None
        self._hooks: StepHooks | None = None
        self._wrapper: Any = None
        self._cached: Callable[[], AbstractContextManager[None]] = nullcontext
        self._example: Any = None

    def _modules(self) -> Iterator[nn.Module]:
        for entry in self._plan.entries:
            yield from entry.method.modules()

    @property
    def methods(self) -> dict[str, Method]:
        """The methods by key."""
        return {entry.key: entry.method for entry in self._plan.entries}

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
        if unwrapped(model) is not model:
            raise TikhonError(
                f"prepare needs the plain model, not {type(model).__name__}: first recipe.prepare(model), then compile "
                "or wrap, then make the optimizer."
            )
        if self._needs_ids and samples is None:
            wanting = [entry.key for entry in self._plan.entries if "ids" in entry.method.needs]
            raise TikhonError(f"{', '.join(wanting)} remembers every sample: prepare(model, samples=len(train)).")
        if samples is not None and samples < 1:
            raise TikhonError(f"samples must be the number of training samples, not {samples}: is the data set empty?")
        _refuse_foreign(model)
        for entry in self._plan.of("check"):
            entry.method.check(model)
        before = {id(parameter) for parameter in model.parameters()}
        self._run.adopt(model)
        for entry in self._plan.of("prepare"):
            with self._run.during("prepare"):
                entry.method.prepare(model)
        for entry in self._plan.entries:
            for name in entry.method.taps(model):
                self._run.taps.place(model, name, entry.key)
        self._added = [one for one in every_parameter(model) if id(one.leaf) not in before]
        self._samples = samples
        for module in self._modules():
            if isinstance(module, PerSampleMemory) and samples is not None:
                module.reserve(samples)
        if any(parametrize.is_parametrized(module) for module in model.modules()):
            self._cached = parametrize.cached
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
        owned = {id(one) for optimizer in inner for group in optimizer.param_groups for one in group["params"]}
        leaves = every_parameter(run.model)
        if not any(id(one.leaf) in owned for one in leaves):
            raise TikhonError("The optimizer owns no parameter of the prepared model: make it from model.parameters().")
        for one in self._added:
            if one.leaf.requires_grad and id(one.leaf) not in owned:
                raise TikhonError(
                    f"The optimizer misses {one.name}, which prepare added: make the optimizer after recipe.prepare."
                )
        self._refuse_unknown_length(steps, epochs)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if distributed else 1
        if world > 1 and model is None:
            raise TikhonError(
                f"{world} processes train together: pass the wrapper that synchronises gradients, "
                "recipe.attach(optimizer, model=ddp_model)."
            )
        run.rank, run.world = (torch.distributed.get_rank() if distributed else 0), world
        run.clock.steps, run.clock.epochs = steps, epochs
        run.own(inner)
        self._wrapper = model
        device = run.device
        for entry in self._plan.entries:
            entry.method.to(device)
        self._window.watch(leaves[-1].leaf if world == 1 else None)
        self._hooks = StepHooks(inner, self)
        return self

    def _refuse_unknown_length(self, steps: int | None, epochs: int | None) -> None:
        for name, value in (("steps", steps), ("epochs", epochs)):
            if value is not None and value < 1:
                raise TikhonError(f"{name} must be positive, not {value}.")
        for entry in self._plan.entries:
            schedules = {name: getattr(entry.method, name, None) for name in strengths(type(entry.method))}
            for name, schedule in schedules.items():
                if not isinstance(schedule, Schedule) or schedule.by == "step":
                    continue
                if epochs is None and (schedule.by == "epoch" or steps is None):
                    needed = "epochs=" if schedule.by == "epoch" else "steps= or epochs="
                    raise TikhonError(
                        f"{entry.key}'s {name} follows {schedule.by}: tell attach how long training is, {needed}."
                    )
            if entry.window is not None and steps is None and epochs is None:
                raise TikhonError(f"{entry.key} acts During a part of training: tell attach how long it is, steps=.")

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
        of weights or of counted positions), so that micro-batch losses add up; model: the wrapper to call, if it is
        not the attached one. Without gradient or in eval mode this is the plain base loss, and moves nothing.
        """
        run = self._run
        inputs, target, index = self._reading.read(inputs, target, index)
        called = model if model is not None else self._wrapper if self._wrapper is not None else run.model
        if not (torch.is_grad_enabled() and run.model.training):
            output = run.output(called, inputs)
            self._base.refuse(output, target)
            return self._base.mean(output, target)
        if self._hooks is None:
            raise TikhonError("The recipe is not attached: call recipe.attach(optimizer) before training.")
        run.restore()
        self._hooks.reset()
        self._window.begin()
        try:
            loss = self._training_loss(called, inputs, target, index, weight, total)
        except BaseException:
            run.restore()
            self._window.forget_batch()
            raise
        run.clock.micro += 1
        return loss

    def _training_loss(
        self, called: Any, inputs: Any, target: Any, index: Tensor | None, weight: Tensor | None, total: Total | None
    ) -> Tensor:
        run, objective = self._run, self._objective
        aim: Target | None = None
        if objective.reads_samples or weight is not None or total is not None:
            index = self._checked_index(index, inputs)
            aim = Target.of(target, index, weight)
            mixed, aim = self._changed_batch(inputs, aim)
            run.begin_batch(inputs, mixed is not inputs)
            inputs = mixed
        if self._example is None:
            self._example = export.example_of(inputs)
        penalty = self._window.penalty(objective.penalties) if self._plan.of("parameter_terms") else None
        passes = _Passes(self, called, inputs, target, aim, total)
        around = self._plan.of("around")
        if around and around[0].active():
            run.moment = "around"
            around[0].step.replay()
            loss = around[0].method.around(passes, around[0].step)
            if run.perturbed:
                self._restore_after(loss)
        else:
            loss = passes()
        run.end_batch()
        run.features = {}
        if penalty is not None:
            loss = loss + penalty
        self._check_finite(loss)
        return loss

    def _changed_batch(self, inputs: Any, target: Target) -> tuple[Any, Target]:
        for entry in self._plan.of("batch"):
            if entry.active():
                self._run.moment = "batch"
                entry.step.replay()
                inputs, target = entry.method.batch(inputs, target, entry.step)
        return inputs, target

    def _checked_index(self, index: Tensor | None, inputs: Any) -> Tensor | None:
        if not self._needs_ids:
            return index
        rows = len(first_tensor(inputs))
        if index is None:
            wanting = [entry.key for entry in self._plan.entries if "ids" in entry.method.needs]
            raise TikhonError(
                f"{', '.join(wanting)} needs to know which samples these are: wrap the full data set in "
                "tk.data.indexed(...) and pass recipe.loss(x, y, index=index)."
            )
        if index.shape != (rows,) or index.is_floating_point():
            raise TikhonError(f"index must be {rows} integers; got {index.dtype} of {tuple(index.shape)}.")
        assert self._samples is not None
        if index.device.type == "cpu" and rows:
            low, high = (int(bound) for bound in torch.aminmax(index))
            if low < 0 or high >= self._samples:
                raise TikhonError(
                    f"Sample ids range from {low} to {high}, but prepare was told samples={self._samples}. "
                    "Index the full data set before any split."
                )
        return index.to(self._run.device, torch.int64)

    def _restore_after(self, loss: Tensor) -> None:
        """Put perturbed weights back when this loss's backward has ended, before anybody clips or steps."""

        def queue(gradient: Tensor) -> None:
            torch.autograd.Variable._execution_engine.queue_callback(self._run.restore)

        loss.register_hook(queue)

    def _check_finite(self, loss: Tensor) -> None:
        # A look at the value waits for an accelerator: there it is taken at the first step and at the end of epochs.
        if loss.device.type == "cpu" or self._run.clock.number == 0:
            self._objective.refuse_nonfinite(loss)
        else:
            self._window.note(loss)

    # The optimizer's step (called by the hooks) ----------------------------------------------------------------------

    def before_step(self) -> None:
        """Gradients are complete: add the penalties' and let methods change them. Called by the optimizer's hook."""
        run = self._run
        run.restore()
        self._window.add_penalty_gradients()
        for entry in self._plan.of("gradients"):
            if entry.active():
                chosen = run.select(getattr(entry.method, "where", "all"))
                with run.during("gradients"), torch.no_grad():
                    entry.step.replay()
                    entry.method.gradients([one for one in chosen if one.leaf.grad is not None], entry.step)

    def after_step(self) -> None:
        """The step happened. Called by the optimizer's hook."""
        run = self._run
        self._window.commit()
        for entry in self._plan.of("after_step"):
            if entry.active():
                with run.during("after_step"), torch.no_grad():
                    entry.step.replay()
                    entry.method.after_step(run.model, entry.step)
        run.clock.number += 1
        run.clock.epoch_steps += 1
        run.clock.micro = 0

    def mark(self) -> Any:
        return self._window.mark()

    def rewind(self, mark: Any) -> None:
        self._window.rewind(mark)

    def end_epoch(self) -> None:
        """Say that an epoch has ended."""
        run = self._run
        self._window.refuse_noted()
        for entry in self._plan.of("epoch_end"):
            with run.during("epoch_end"), torch.no_grad():
                entry.step.replay()
                entry.method.epoch_end(entry.step)
        run.clock.epoch += 1
        run.clock.last_epoch_steps, run.clock.epoch_steps = run.clock.epoch_steps, 0

    def end_task(self, batches: Iterable[Any] | None = None) -> None:
        """Say that a task of a sequence has been learned, for methods that keep it while the next one is.

        batches: the task's data as your loader gives them, for methods that look at them again.
        """
        run = self._run
        run.restore()

        def pairs() -> Iterator[tuple[Any, Tensor]]:
            for batch in () if batches is None else batches:
                inputs, target, _ = self._reading.read(batch, None, None)
                yield map_tensors(lambda values: values.to(run.device), inputs), target.to(run.device)

        for entry in self._plan.of("task_end"):
            with run.during("task_end"), torch.no_grad():
                entry.step.replay()
                entry.method.task_end(None if batches is None else pairs(), entry.step)

    # Looking in ------------------------------------------------------------------------------------------------------

    def explain(self) -> str:
        """Which method acts in which moment of the training step, in order."""
        return self._plan.explain()

    def log(self) -> dict[str, float]:
        """The latest parts of the loss and the strengths in force. Reading it waits for the device."""
        values = {f"loss/{name}": float(value) for name, value in self._objective.values.items()}
        values |= {f"loss/{name}": float(value) for name, value in self._window.penalty_values.items()}
        for entry in self._plan.entries:
            for name in strengths(type(entry.method)):
                values[f"{entry.key}/{name}"] = entry.step.value(getattr(entry.method, name))
        return values

    def probabilities(self, output: Tensor) -> Tensor:
        """Class probabilities (B, K) of model outputs, by the loss function that the recipe trains with."""
        return self._run.loss.probabilities(output)

    # Saving ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that must survive, as tensors and plain values: loads with `weights_only=True`."""
        self._run.restore()
        return save_state(self._run, self.methods)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken. A foreign state is refused and nothing is changed."""
        self._run.restore()
        self._window.forget()
        load_state(self._run, self.methods, state)

    # At the end ------------------------------------------------------------------------------------------------------

    @contextmanager
    def deployed(self) -> Iterator[nn.Module]:
        """Inside, the model has the weights that export would give (averages); they return by copy."""
        run = self._run
        run.restore()
        averages = {name: value for entry in self._plan.entries for name, value in entry.method.averages().items()}
        chosen = [one.leaf for one in every_parameter(run.model) if one.name in averages]
        names = [one.name for one in every_parameter(run.model) if one.name in averages]
        trained = [leaf.detach().clone() for leaf in chosen]
        copy_into(chosen, [averages[name] for name in names])
        try:
            yield run.model
        finally:
            copy_into(chosen, trained)

    def detach(self) -> None:
        """Take the hooks off the optimizers."""
        self._run.restore()
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None
        self._window.unwatch()
        self._run.own(())

    def export(self) -> nn.Module:
        """The finished model as plain torch: averaged, merged, pruned, hooks gone, and its outputs compared."""
        self.detach()
        return export.export(self._run, self._plan, self._example, self.deployed)


class _Passes:
    """The loss as a function of the weights: the first call writes state, every further call repeats it exactly."""

    def __init__(
        self, recipe: Recipe, called: Any, inputs: Any, target: Any, aim: Target | None, total: Total | None
    ) -> None:
        self._recipe, self._called, self._inputs = recipe, called, inputs
        self._target, self._aim, self._total = target, aim, total
        self._random: RandomState | None = None
        self._ignored = False

    def __call__(self) -> Tensor:
        recipe, run = self._recipe, self._recipe._run
        if not recipe._plan.of("around"):
            return self._first()
        if self._random is None:
            self._random = RandomState.now(run.device)
            return self._first()
        after = RandomState.now(run.device)
        self._random.restore()
        try:
            with frozen_statistics(run.model):
                output = self._forward()
                if self._aim is None:
                    return recipe._objective.plain(output, self._target)
                return recipe._objective.again(output, self._aim, self._total, self._ignored)
        finally:
            after.restore()

    def _first(self) -> Tensor:
        objective = self._recipe._objective
        output = self._forward()
        self._ignored = self._recipe._base.refuse(output, self._target)
        if self._aim is None and not self._ignored:
            return objective.plain(output, self._target)
        loss, self._aim = objective.first(output, self._aim or Target.of(self._target), self._total, self._ignored)
        return loss

    def _forward(self) -> Tensor:
        run = self._recipe._run
        if not run.taps.placed:
            with self._recipe._cached():
                return run.output(self._called, self._inputs)
        with self._recipe._cached(), run.taps.recording() as run.features:
            return run.output(self._called, self._inputs)


def _refuse_foreign(model: nn.Module) -> None:
    if not any(True for _ in model.parameters()):
        raise TikhonError(f"{type(model).__name__} has no parameters to train.")
