"""Hugging Face: a `Trainer` whose loss is a recipe's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from tikhon.core import checkpoint
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe

if TYPE_CHECKING:
    from tikhon.report.doctor import Doctor

FILE = "recipe.pt"
"""Where in a checkpoint's folder the recipe's state is."""


class RecipeTrainer(Trainer):
    """A `Trainer` that trains with a recipe; everything else is as you know it.

    recipe: one that knows your batches and model, usually `Recipe(..., target="labels", output="logits")`; samples: how
    many training samples there are, for methods that remember each: then wrap the training set in `tk.data.indexed` and
    set `remove_unused_columns=False`, so that the samples' numbers arrive.

    Losses of accumulated micro-batches are divided by the step's number of labels where `Trainer` counts these.
    `evaluate` and `predict` see the weights that `recipe.export()` would give, and report the model's own loss.
    What `recipe.log()` knows is logged with `Trainer`'s own numbers, `loss/task` as `loss_task`. The recipe's state is
    saved in each checkpoint's folder and read when training resumes. After training, `recipe.export()` is the plain
    model.

    Refused: `label_smoothing_factor` and `compute_loss_func`, which would be a second owner of the loss (use
    `tk.LabelSmoothing` and `base=`), and several GPUs in one process: start one process each.
    """

    def __init__(self, *args: Any, recipe: Recipe, samples: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model = _refuse(self, samples)
        self.recipe = recipe
        self.recipe.prepare(model, samples=samples)
        self.add_callback(_EpochsAndFiles(recipe))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The optimizer is made and the length of training known: the moment to attach."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        self.recipe.detach()  # of an earlier call of `train`
        epochs = math.ceil(self.args.num_train_epochs) if self.args.max_steps <= 0 else None
        self.recipe.attach(self.optimizer, model=self.model, steps=num_training_steps, epochs=epochs)
        return scheduler

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if return_outputs or not model.training:
            known = {name: values for name, values in inputs.items() if name != "index"}
            return super().compute_loss(model, known, return_outputs, num_items_in_batch)
        # A mean over the micro-batch is divided by their number; a share of the whole step is not.
        self.loss_is_scaled_for_ga = num_items_in_batch is not None
        return self.recipe.loss(inputs, total=self._everywhere(num_items_in_batch), model=model)

    def _everywhere(self, items: Tensor | int | None) -> Tensor | int | None:
        """The labels of the step in all processes; without `average_tokens_across_devices` it is told those of one."""
        if items is None or self.args.average_tokens_across_devices:
            return items
        processes: int = self.accelerator.num_processes
        return items * processes

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.recipe.deployed():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self.recipe.deployed():
            return super().predict(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            # Trainer's own number is called `loss`: a tracker that keeps folders cannot keep `loss/task` beside it.
            ours = {name.replace("loss/", "loss_", 1): value for name, value in self.recipe.log().items()}
            logs = {**logs, **ours}
        super().log(logs, start_time)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)  # type: ignore[no-untyped-call]
        self._resumed = _EpochsAndFiles.read(folder) if folder else None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        super()._load_optimizer_and_scheduler(folder)
        if self._resumed is not None:
            self.recipe.load_state_dict(self._resumed)  # last, as always
            self._resumed = None


class _EpochsAndFiles(TrainerCallback):
    """Ends epochs, and keeps the recipe's state beside the model's."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.recipe.end_epoch()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            path = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / FILE
            checkpoint.write(path, self.recipe.state_dict())

    @staticmethod
    def read(folder: str | bool) -> dict[str, Any]:
        path = Path(str(folder)) / FILE
        if not path.is_file():
            raise TikhonError(f"There is no {FILE} in {folder}: that checkpoint was not written with a recipe.")
        state: dict[str, Any] = checkpoint.read(path)
        return state


class DoctorCallback(TrainerCallback):
    """Lets a `tikhon.Doctor` look at the model after every epoch, in `RecipeTrainer` and in any other `Trainer`.

    doctor: which keeps the history, and examines the model when training is over; it needs to know how to call the
    model, as in `Doctor(..., call=lambda model, x: model(x).logits)`; recipe: the one that trains it, to look at the
    weights that `recipe.export()` would give. What is seen is in the trainer's own log history too, as
    `doctor_test_metric` and so on, from which the doctor goes on when training is resumed. Each of several processes
    measures for itself.
    """

    PREFIX = "doctor_"

    def __init__(self, doctor: Doctor, recipe: Recipe | None = None) -> None:
        self.doctor = doctor
        self.recipe = recipe

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        history: dict[str, list[float]] = {}
        for entry in state.log_history:
            for name, value in entry.items():
                if name.startswith(self.PREFIX):
                    history.setdefault(name.removeprefix(self.PREFIX), []).append(value)
        self.doctor.load_state_dict({"history": history})

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self.doctor.end_epoch(model if self.recipe is None else self.recipe)
        seen = {f"{self.PREFIX}{name}": values[-1] for name, values in self.doctor.history.items()}
        state.log_history.append({**seen, "epoch": state.epoch, "step": state.global_step})


def _refuse(trainer: RecipeTrainer, samples: int | None) -> nn.Module:
    """The model, where nothing speaks against training it with a recipe."""
    args, model = trainer.args, trainer.model
    if model is None:
        raise TikhonError("RecipeTrainer needs the model itself: a recipe prepares one, not what model_init makes.")
    if args.label_smoothing_factor:
        raise TikhonError("label_smoothing_factor smooths behind the recipe's back: use tk.LabelSmoothing instead.")
    if trainer.compute_loss_func is not None:
        raise TikhonError("compute_loss_func would own the loss beside the recipe: pass it as tk.Recipe(..., base=).")
    if samples is not None and args.remove_unused_columns:
        raise TikhonError("Trainer would remove the samples' numbers: set remove_unused_columns=False.")
    if args.n_gpu > 1:
        raise TikhonError(f"{args.n_gpu} GPUs in one process share nothing that is remembered: use torchrun.")
    return model
