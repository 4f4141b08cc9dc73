"""The runs of `tikhon compare` beside loops written by hand: what engine, costs and results add to training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon as tk
from benchmarks.harness import Pair, case
from tikhon.core.fit import batches
from tikhon.data import Task, build_model, load_task
from tikhon.studies.experiment import accuracy, cell, run_cell

TASK = {"source": "digits", "label_noise": 0.4}
EPOCHS = 60
BARE = "the peer is a bare loop that measures the same curves"
LIMIT = 1.05


def compared(arm: str) -> Tensor:
    """Accuracy on all splits, as `compare` has it."""
    found = run_cell(cell(task=TASK, model="mlp", arm=arm, seed=0, epochs=EPOCHS), lambda share: None)
    return torch.tensor([found["train_metric"], found["validation_metric"], found["metric"]])


@case("an arm of compare, no method, 60 epochs of digits", peer="torch", note=BARE, limit=LIMIT)
def plain() -> Pair:
    return Pair(lambda: compared("none"), lambda: by_hand(curves=True))


@case(
    "an arm of compare, no method, 60 epochs of digits, its curves counted",
    peer="torch",
    note="the loop looks at no split before the end: what learning curves cost",
    limit=LIMIT,
)
def curves_counted() -> Pair:
    return Pair(lambda: compared("none"), lambda: by_hand(curves=False))


@case("an arm of compare, early stopping, 60 epochs of digits", peer="torch", note=BARE, limit=LIMIT)
def stopped() -> Pair:
    return Pair(lambda: compared("early_stopping"), lambda: by_hand(curves=True, keep_best=True))


@case("an arm of compare, ELR, 60 epochs of digits", peer="torch", note=f"{BARE}, with a recipe", limit=LIMIT)
def remembered() -> Pair:
    return Pair(lambda: compared("elr"), with_recipe)


def by_hand(curves: bool, keep_best: bool = False) -> Tensor:
    """Plain torch. curves: whether accuracy on all splits is kept after every epoch, as the arm has it."""
    task = load_task(**TASK, seed=0)
    model = build_model("mlp", task, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    best, weights = -math.inf, model.state_dict()
    measured = []
    for epoch in range(EPOCHS):
        model.train()
        for _, inputs, target in batches(task.train.inputs, task.train.target, 128, 0, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), target).backward()
            optimizer.step()
        if curves:
            measured.append(accuracies(model, task))
        if keep_best and (score := measured[-1][1]) > best:
            best, weights = score, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    return torch.tensor(accuracies(model, task))


def with_recipe() -> Tensor:
    """As the README shows it, with the same curves."""
    task = load_task(**TASK, seed=0)
    recipe = tk.Recipe(tk.ELR())
    model = recipe.prepare(build_model("mlp", task, seed=0), samples=len(task.train))
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recipe.attach(optimizer, epochs=EPOCHS)
    measured = []
    for epoch in range(EPOCHS):
        model.train()
        for index, inputs, target in batches(task.train.inputs, task.train.target, 128, 0, epoch):
            optimizer.zero_grad()
            recipe.loss(inputs, target, index=index).backward()
            optimizer.step()
        recipe.end_epoch()
        measured.append(accuracies(model, task))
    return torch.tensor(accuracies(recipe.export(), task))


def accuracies(model: nn.Module, task: Task) -> list[float]:
    """On the training, validation and test split."""
    model.eval()
    with torch.no_grad():
        return [accuracy(model(one.inputs), one.target) for one in (task.train, task.validation, task.test)]
