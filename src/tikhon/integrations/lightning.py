"""Lightning: a callback that gives a recipe its place in a `Trainer`, whatever the module."""

from __future__ import annotations

from contextlib import AbstractContextManager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import lightning
from torch import nn

from tikhon.core.errors import TikhonError
from tikhon.core.parameters import find_module
from tikhon.core.recipe import Recipe

if TYPE_CHECKING:
    from tikhon.report.doctor import Doctor


class RecipeCallback(lightning.Callback):
    """Prepares, attaches, validates, logs and saves a recipe; your module keeps automatic optimization.

    In your module, `training_step` returns `recipe.loss(batch)` in place of the loss that it computed. The recipe calls
    the inner network itself, with what the loader gives: (x, y), (index, x, y) or a mapping.

    recipe: the one that `training_step` uses; at: the module's attribute that is the network, as in `self.net`, which
    may be compiled;
    samples: how many training samples there are, for methods that remember each. Validation and test see the weights
    that `recipe.export()` would give. What `recipe.log()` knows is logged as often as the trainer logs.
    The state is part of the trainer's checkpoints, and belongs to the weights wherever one is read. Validation and test
    before any training, and without a checkpoint, see the module as it is. After `fit`, `recipe.export()` returns the
    plain network.

    >>> import torch
    >>> recipe = Recipe()
    >>> class Classifier(lightning.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = nn.Linear(3, 2)
    ...
    ...     def training_step(self, batch, batch_idx):
    ...         return recipe.loss(batch)
    ...
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    >>> callback = RecipeCallback(recipe, at="net")
    """

    def __init__(self, recipe: Recipe, at: str, samples: int | None = None) -> None:
        self.recipe = recipe
        self.at = at
        self.samples = samples
        self._logged = 0
        self._tried = self._happened = 0  # optimizer steps, when the latest batch ended
        self._loaded: dict[str, Any] | None = None
        self._deployed: AbstractContextManager[nn.Module] | None = None

    # Set-up ----------------------------------------------------------------------------------------------------------

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Surgery, before Lightning makes optimizers or loads weights."""
        network = self._network(pl_module)
        if self.recipe.model is None:
            if stage == "fit":
                self.recipe.prepare(network, samples=self.samples)
        elif self.recipe.model is not network:
            raise TikhonError("This recipe has another module's network; every fit of a fresh one needs its own.")

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        endless = trainer.max_epochs is None or trainer.max_epochs < 0
        self.recipe.detach()  # of an earlier fit
        # training_step runs inside the wrapper's forward: what the recipe calls is the network itself.
        self.recipe.attach(
            *trainer.optimizers,
            model=attrgetter(self.at)(pl_module),  # with what compiles it, if you wrapped it
            steps=int(steps) if steps != float("inf") else None,
            epochs=None if endless else trainer.max_epochs,
        )
        self._load()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._tried, self._happened = trainer.global_step, self.recipe.step

    def _network(self, module: lightning.LightningModule) -> nn.Module:
        return find_module(module, self.at, "RecipeCallback")

    # Training --------------------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tried, happened = trainer.global_step, self.recipe.step
        if tried > self._tried and happened == self._happened:
            self.recipe.skip_step()  # by a gradient scaler; Lightning zeroes gradients after the next loss only
        self._tried, self._happened = tried, happened
        # As Lightning does: reading values waits for the device, so not at every step.
        ended = self.recipe.step > self._logged
        if trainer.loggers and ended and self.recipe.step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._logged = self.recipe.step
            values = self.recipe.log()
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.recipe.end_epoch()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._return_weights()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._return_weights()

    # Validation sees the finished model ------------------------------------------------------------------------------

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._return_weights()
        if self._loaded is not None and self.recipe.model is None:
            self.recipe.prepare(self._network(pl_module), samples=self.samples)
        self._load()
        if self.recipe.model is not None:
            self._deployed = self.recipe.deployed()
            self._deployed.__enter__()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._return_weights()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def _return_weights(self) -> None:
        if self._deployed is not None:
            deployed, self._deployed = self._deployed, None
            deployed.__exit__(None, None, None)

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return self.recipe.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict  # Lightning loads before it has optimizers; a recipe is loaded last

    def _load(self) -> None:
        if self._loaded is not None:
            loaded, self._loaded = self._loaded, None
            self.recipe.load_state_dict(loaded)


class DoctorCallback(lightning.Callback):
    """Lets a `tikhon.Doctor` look at the network after every epoch, whether a recipe trains it or not.

    doctor: which keeps the history, and examines the network when `fit` is over; at: the module's attribute that is the
    network; recipe: the one that trains it, to look at the weights that `recipe.export()` would give; name this
    callback after the recipe's. The history is part of the trainer's checkpoints. Each of several processes measures
    for itself.

    >>> import torch
    >>> from tikhon.report.doctor import Doctor
    >>> inputs, labels = torch.randn(40, 3), torch.arange(40) % 2
    >>> callback = DoctorCallback(Doctor(train=(inputs[:20], labels[:20]), test=(inputs[20:], labels[20:])), at="net")
    """

    def __init__(self, doctor: Doctor, at: str, recipe: Recipe | None = None) -> None:
        self.doctor = doctor
        self.at = at
        self.recipe = recipe

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        network = find_module(pl_module, self.at, "DoctorCallback")
        self.doctor.end_epoch(network if self.recipe is None else self.recipe)

    def state_dict(self) -> dict[str, Any]:
        return self.doctor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.doctor.load_state_dict(state_dict)
