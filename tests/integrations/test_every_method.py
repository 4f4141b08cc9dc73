"""Every method in Lightning, Accelerate and Trainer: the weights of the plain loop, to the bit."""

from __future__ import annotations

import lightning
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments

from laws.rows import METHODS, ROWS, Row, make, problem_of
from laws.training import SAMPLES, STEPS, Net, batches, differing, network, sgd, tensors
from tikhon import Recipe
from tikhon.integrations.accelerate import attach
from tikhon.integrations.lightning import RecipeCallback
from tikhon.integrations.transformers import RecipeTrainer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.parametrize("name", METHODS)]


def recipe_of(name: str) -> Recipe:
    torch.manual_seed(0)
    problem = problem_of(name)
    return Recipe(make(name), base=problem.base, output=problem.output, seed=5)


def begin(name: str, recipe: Recipe) -> None:
    ROWS.get(name, Row()).begin(recipe)


def loader(name: str) -> DataLoader:
    """One epoch of batches (index, x, y) as they are."""
    return DataLoader([*batches(0, STEPS, problem=problem_of(name))], batch_size=None)


def plainly(name: str) -> dict[str, torch.Tensor]:
    recipe = recipe_of(name)
    model = recipe.prepare(network(problem=problem_of(name)), samples=SAMPLES)
    optimizer = sgd(model.parameters())
    recipe.attach(optimizer, steps=STEPS, epochs=1)
    begin(name, recipe)
    for index, inputs, target in loader(name):
        optimizer.zero_grad()
        recipe.loss(inputs, target, index=index).backward()
        optimizer.step()
    recipe.end_epoch()
    return tensors(model)


class Module(lightning.LightningModule):
    def __init__(self, name: str, recipe: Recipe) -> None:
        super().__init__()
        self.net, self.name, self.recipe = network(problem=problem_of(name)), name, [recipe]

    def on_train_start(self):
        begin(self.name, self.recipe[0])

    def training_step(self, batch, number):
        index, inputs, target = batch
        return self.recipe[0].loss(inputs, target, index=index)

    def configure_optimizers(self):
        return sgd(self.net.parameters())


@pytest.mark.environment("Lightning")
def test_lightning_has_the_weights_of_the_plain_loop(name, tmp_path) -> None:
    expected = plainly(name)
    recipe = recipe_of(name)
    module = Module(name, recipe)
    lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[RecipeCallback(recipe, at="net", samples=SAMPLES)],
    ).fit(module, loader(name))
    assert recipe.step == STEPS
    assert not differing(tensors(module.net), expected)


@pytest.mark.environment("Accelerate")
def test_accelerate_has_the_weights_of_the_plain_loop(name) -> None:
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    expected = plainly(name)
    accelerator, recipe = Accelerator(cpu=True), recipe_of(name)
    model = recipe.prepare(network(problem=problem_of(name)), samples=SAMPLES)
    model, optimizer = accelerator.prepare(model, sgd(model.parameters()))
    attach(accelerator, recipe, model, optimizer, steps=STEPS, epochs=1)
    begin(name, recipe)
    for index, inputs, target in loader(name):
        with accelerator.accumulate(model):
            accelerator.backward(recipe.loss(inputs, target, index=index))
            optimizer.step()
            optimizer.zero_grad()
    recipe.end_epoch()
    assert not differing(tensors(accelerator.unwrap_model(model)), expected)


class Speaking(Net):
    """The network in Hugging Face's manner."""

    def forward(self, x, labels=None):
        return {"logits": super().forward(x)}


class InOrder(RecipeTrainer):
    def get_train_dataloader(self):
        rows = [dict(zip(("index", "x", "labels"), batch, strict=True)) for batch in self.train_dataset]
        return DataLoader(rows, batch_size=None)


class Begins(TrainerCallback):
    def __init__(self, name: str, recipe: Recipe) -> None:
        self.name, self.recipe = name, recipe

    def on_train_begin(self, args, state, control, **kwargs):
        begin(self.name, self.recipe)
        torch.manual_seed(0)  # Trainer sets a seed of its own


@pytest.mark.environment("Trainer")
def test_trainer_has_the_weights_of_the_plain_loop(name, tmp_path) -> None:
    expected = plainly(name)
    problem, method = problem_of(name), make(name)
    recipe = Recipe(
        method,
        base=problem.base,
        inputs=lambda batch: batch["x"] if isinstance(batch, dict) else batch[0],  # `begin` has pairs
        target=lambda batch: batch["labels"] if isinstance(batch, dict) else batch[1],
        index=lambda batch: batch["index"] if isinstance(batch, dict) else None,
        output="logits" if problem.output is None else lambda found: problem.output(found["logits"]),
        seed=5,
    )
    model = network(problem=problem)
    model.__class__ = Speaking
    settings = TrainingArguments(
        tmp_path,
        num_train_epochs=1,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        learning_rate=0.1,
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
    )
    trainer = InOrder(
        model,
        settings,
        train_dataset=[*loader(name)],
        recipe=recipe,
        samples=SAMPLES,
        callbacks=[Begins(name, recipe)],
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    )
    trainer.train()
    assert recipe.step == STEPS
    assert not differing(tensors(model), expected)
