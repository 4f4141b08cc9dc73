"""Adaptation: a network pretrained on five digits learns the other five with few samples and few steps."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.adapters import Adapter, adapt, merge
from tikhon.core.fit import batches, fit
from tikhon.core.parameters import select
from tikhon.core.recipe import Recipe
from tikhon.core.step import seed_for
from tikhon.data import Split, build_model, load_task
from tikhon.studies.arms import parse_arm
from tikhon.studies.experiment import Report, accuracy
from tikhon.studies.study import Settings

RANK = 4
EPOCHS = 10
PRETRAINING = 20


def run(settings: Settings, seed: int, report: Report) -> dict[str, float]:
    """Pretrain an MLP on digits 0 to 4, then adapt it to 5 to 9, whose labels take the same five outputs.

    settings: "recipe", or "lora" True for plain LoRA of the same rank; learning_rate, of Adam. Measures: metric and
    validation (accuracy on 5 to 9), loss (on the adaptation's training set, after half of the steps), kept (accuracy on
    0 to 4 afterwards).
    """
    task = load_task("digits", seed=seed)
    old, new = ({name: _part(split, first) for name, split in _splits(task)} for first in (0, 5))
    model, _ = fit(
        build_model("mlp", task, seed=seed),
        Recipe(seed=seed),
        (old["train"].inputs, old["train"].target),
        epochs=PRETRAINING,
        seed=seed,
    )
    recipe = Recipe(*parse_arm(settings.get("recipe", "none")).methods(), seed=seed)
    frozen = _lora(model, seed) if settings.get("lora") else []
    recipe.prepare(model)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=settings["learning_rate"])
    recipe.attach(optimizer, epochs=EPOCHS)
    half = math.nan
    for epoch in range(EPOCHS):
        for _, inputs, target in batches(new["train"].inputs, new["train"].target, 64, seed, epoch):
            optimizer.zero_grad()
            recipe.loss(inputs, target).backward()
            optimizer.step()
        recipe.end_epoch()
        if epoch + 1 == EPOCHS // 2:
            with torch.no_grad():
                half = float(F.cross_entropy(model(new["train"].inputs), new["train"].target))
        report((epoch + 1) / EPOCHS)
    adapted = recipe.export() if not frozen else merge(copy.deepcopy(model), ())
    adapted.eval()
    with torch.no_grad():
        return {
            "metric": accuracy(adapted(new["test"].inputs), new["test"].target),
            "kept": accuracy(adapted(old["test"].inputs), old["test"].target),
            "loss": half,
            "validation": accuracy(adapted(new["validation"].inputs), new["validation"].target),
        }


def _splits(task: object) -> list[tuple[str, Split]]:
    return [(name, getattr(task, name)) for name in ("train", "validation", "test")]


def _part(split: Split, first: int) -> Split:
    kept = (split.target >= first) & (split.target < first + 5)
    return Split(split.inputs[kept], split.target[kept] - first)


def _lora(model: nn.Module, seed: int) -> list[nn.Parameter]:
    """Plain LoRA: A random, B zero, the pretrained weight as the residual (Hu et al. 2021, arXiv 2106.09685)."""
    generator = torch.Generator().manual_seed(seed_for("lora", seed))

    def adapter(weight: Tensor) -> Adapter:
        a = torch.randn(RANK, weight.shape[1], generator=generator) / math.sqrt(weight.shape[1])
        return Adapter(weight, a, weight.new_zeros(len(weight), RANK))

    chosen = [(one, adapter(one.leaf.detach())) for one in select(model, nn.Linear)]
    return adapt(chosen, model, freeze=True)


def rates(**arm: object) -> list[Settings]:
    """Candidates that differ in the learning rate."""
    return [{**arm, "learning_rate": rate} for rate in (1e-3, 3e-3, 1e-2)]
