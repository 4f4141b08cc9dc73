"""Accelerate: attach a recipe to what `accelerator.prepare` returned, and save it with the rest."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from tikhon.core.recipe import Recipe


def attach(
    accelerator: Accelerator,
    recipe: Recipe,
    model: Any,
    *optimizers: Any,
    steps: int | None = None,
    epochs: int | None = None,
) -> Recipe:
    """Attach, and let `accelerator.save_state` and `load_state` keep the recipe's state with the model's.

    model, optimizers: as `accelerator.prepare` returned them, the model prepared by the recipe before; steps, epochs:
    how long training is, in optimizer steps. Train with `accelerator.backward(recipe.loss(x, y))`, inside
    `accelerator.accumulate(model)` where gradients are accumulated.

    >>> import torch
    >>> accelerator, recipe = Accelerator(cpu=True), Recipe()
    >>> model = recipe.prepare(torch.nn.Linear(3, 2))
    >>> model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    >>> _ = attach(accelerator, recipe, model, optimizer, epochs=1)
    >>> accelerator.backward(recipe.loss(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])))
    >>> optimizer.step()
    """
    recipe.attach(*optimizers, model=model, steps=steps, epochs=epochs)
    accelerator.register_for_checkpointing(recipe)
    return recipe
