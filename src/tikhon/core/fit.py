"""A small training loop, for the command line, the studies and people in a hurry. It is not a trainer to grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.best import Best
from tikhon.core.checkpoint import Checkpoint
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe
from tikhon.core.state import refuse_foreign
from tikhon.core.step import seed_for

Batch = tuple[Tensor, Tensor]
Metric = Callable[[nn.Module], float]


@dataclass
class History:
    """What was seen while training, by epoch."""

    train_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    seconds: float = 0.0
    """Time spent in training steps, without the metrics."""


def batches(
    inputs: Tensor, target: Tensor, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(index, inputs, target) in an order that depends on seed and epoch alone; the last batch may be smaller."""
    generator = torch.Generator().manual_seed(seed_for("order", seed, epoch))
    for index in torch.randperm(len(target), generator=generator).split(batch_size):
        yield index, inputs[index], target[index]


def fit(
    model: nn.Module,
    recipe: Recipe,
    data: Batch,
    *,
    epochs: int,
    batch_size: int = 128,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    metrics: dict[str, Metric] | None = None,
    keep_best: str | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, History], bool | None] | None = None,
    checkpoint: str | Path | None = None,
) -> tuple[nn.Module, History]:
    """Train a model with a recipe and return the finished, exported model with what was seen on the way.

    data: inputs (N, ...) and target (N, ...); optimizer: parameters -> optimizer, SGD with learning rate 0.1 and
    momentum 0.9 by default; metrics: functions of the deployed model, called after every epoch in eval mode;
    keep_best: the metric whose best epoch's weights are returned (early stopping that restores); seed: of the order of
    batches and of torch's global generator for dropout-like modules, which is put back at the end; on_epoch: called
    after every epoch; training ends where it returns True, as `EarlyStopping.update` does; checkpoint: a folder for the
    state after every epoch: called again with the same arguments after an interruption, training goes on from there and
    ends with the same weights, to the bit.

    Strengths that are learned are tuned on what the metrics do not see: `recipe.tune(validation_batches)` before.
    """
    inputs, target = data
    if len(inputs) != len(target):
        raise TikhonError(f"{len(inputs)} inputs do not fit {len(target)} targets.")
    if not len(target):
        raise TikhonError("The training set is empty.")
    if epochs < 1 or batch_size < 1:
        raise TikhonError(f"epochs and batch_size must be positive, not {epochs} and {batch_size}.")
    if keep_best is not None and keep_best not in (metrics or {}):
        raise TikhonError(f"keep_best={keep_best!r} names no metric; there are {', '.join(metrics or {}) or 'none'}.")
    identity = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "samples": len(target)}
    files = None if checkpoint is None else Checkpoint(checkpoint, identity)
    saved = None if files is None else files.load()
    if saved is not None:
        refuse_foreign(recipe._run, recipe.methods, saved["recipe"])
    prepared = recipe.prepare(model, samples=len(target))
    make = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
    chosen = make(prepared.parameters())
    steps = epochs * -(-len(target) // batch_size)
    recipe.attach(chosen, steps=steps, epochs=epochs)
    history = History(metrics={name: [] for name in metrics or {}})
    best = Best(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("modules", seed))  # what nn.Dropout draws from
        if saved is not None:
            _refuse_other_model(prepared, saved["model"])
            recipe.load_state_dict(saved["recipe"])
            chosen.load_state_dict(saved["optimizer"])
            prepared.load_state_dict(saved["model"])
            torch.set_rng_state(saved["generator"])
            history = History(**saved["history"])
            best.load_state_dict(saved["best"])
        ended = saved is not None and saved["ended"]
        for epoch in range(epochs if ended else recipe.epoch, epochs):
            start = time.perf_counter()
            rows = batches(inputs, target, batch_size, seed, epoch)
            history.train_loss.append(_epoch(prepared, recipe, chosen, rows))
            recipe.end_epoch()
            history.seconds += time.perf_counter() - start
            _measure(prepared, recipe, metrics or {}, history)
            if keep_best is not None and best.improved(history.metrics[keep_best][-1]):
                history.best_epoch = epoch
            ended = on_epoch is not None and bool(on_epoch(epoch, history))
            if files is not None:
                files.save(
                    {
                        "model": prepared.state_dict(),
                        "optimizer": chosen.state_dict(),
                        "recipe": recipe.state_dict(),
                        "generator": torch.get_rng_state(),
                        "history": asdict(history),
                        "best": best.state_dict(),
                        "ended": ended,
                    }
                )
            if ended:
                break
    best.restore()
    return recipe.export(), history


def _refuse_other_model(model: nn.Module, saved: Mapping[str, Any]) -> None:
    """torch itself would load what fits before it complains of what does not."""
    here = model.state_dict()
    for name in {**here, **saved}:
        one, other = here.get(name), saved.get(name)
        if (name in here) != (name in saved) or getattr(one, "shape", None) != getattr(other, "shape", None):
            raise TikhonError(
                f"The checkpoint is of another model: {name} is {_shown(saved, name)} there and {_shown(here, name)} "
                "here. Name another folder."
            )


def _shown(state: Mapping[str, Any], name: str) -> str:
    return f"of shape {tuple(state[name].shape)}" if name in state else "missing"


def _epoch(model: nn.Module, recipe: Recipe, optimizer: torch.optim.Optimizer, rows: Any) -> float:
    model.train()
    losses, sizes = [], []  # they stay on the device: a look at one in every step would wait for the step
    for index, inputs, target in rows:
        optimizer.zero_grad()
        loss = recipe.loss(inputs, target, index=index)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        sizes.append(len(index))
    return float(torch.stack(losses).cpu().double() @ torch.tensor(sizes, dtype=torch.float64)) / sum(sizes)


def _measure(model: nn.Module, recipe: Recipe, metrics: dict[str, Metric], history: History) -> None:
    model.eval()
    with recipe.deployed() as deployed, torch.no_grad():
        for name, metric in metrics.items():
            history.metrics[name].append(metric(deployed))
    model.train()
