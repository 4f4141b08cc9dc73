"""Experience replay: keep a few samples of every task and train on them beside the new ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tikhon.core.batches import first_tensor
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target


def kept_samples(keys: Tensor, labels: Tensor, size: int) -> Tensor:
    """Which samples a memory of `size` keeps: those with the largest keys, of every label as many as of any other.

    keys: (N,), drawn once for each sample and kept with it; labels: (N,), class indices, or all alike for a reservoir
    without classes. Returns the indices of min(size, N) samples. What is kept of a stream, batch after batch, is what
    would be kept of all of it at once: with random keys a uniform sample of every class (Vitter 1985's reservoir).

    >>> kept_samples(torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 0, 0, 1]), 2)
    tensor([0, 3])
    """
    order = keys.argsort(descending=True)
    by_label = order[labels[order].argsort(stable=True)]
    ordered = labels[by_label]
    place = torch.arange(len(keys), device=keys.device)
    first = torch.searchsorted(ordered, ordered)  # where this label begins
    ranks = place.scatter(0, by_label, place - first)
    # Among samples of equal rank, which are of different labels, the larger key stays.
    return order[ranks[order].argsort(stable=True)][:size]


class Replay(Method):
    """Store samples of the tasks learned so far and mix them into every batch of those that follow.

    Use it wherever old data may be kept: of all remedies against forgetting it is the simplest and mostly the best,
    with a few samples a class already, and the only simple one where classes arrive one after another and compete in
    one softmax. Not where privacy forbids it. Say `recipe.end_task(loader)` when a task is learned; before the first
    such call training is plain. In a stream without tasks say it of every batch, `recipe.end_task([(x, y)])`, once.

        batch <- (x_1, ..., x_B, m_1, ..., m_R),   loss = (sum_i l(x_i) + strength sum_j l(m_j)) / (B + strength R)

    m: drawn from the memory with replacement. The memory is a random sample of everything it was given, of every class
    as many as there is room for, or a plain reservoir with balanced=False or where targets are values. Replayed samples
    go through the network with the others, so that batch norm sees both and later methods mix and smooth both; they
    have no sample ids, and methods that need ids are refused. `total=` is the mass of your own samples: it does not
    know of replayed ones, whose losses come on top.

    size: of the memory, in samples; strength: the weight of a replayed sample, at least 0; count: R, how many are drawn
    for a batch, None for as many as the batch has; balanced: equal room for every class.

    Cost: the batch grows by R samples. The memory is on the model's device and part of the saved state.
    Reference: Chaudhry et al. 2019, arXiv 1902.10486; Rolnick et al. 2018, arXiv 1811.11682.

    >>> recipe = tikhon.Recipe(tikhon.Replay(size=200))
    """

    card = Card(
        title="On Tiny Episodic Memories in Continual Learning",
        authors="Chaudhry, Rohrbach, Elhoseiny, Ajanthan, Dokania, Torr, Ranzato",
        year=2019,
        arxiv="1902.10486",
        problems=("forgetting",),
        formula=r"L = \frac{\sum_i l(x_i) + \lambda\sum_j l(m_j)}{B + \lambda R},\quad m_j \sim \mathcal{M}",
        claim="Training on a tiny memory beside the new data beats methods made for continual learning.",
        helps="Any sequence of tasks of which a few samples may be kept; classes that compete in one softmax.",
        hurts="Data that may not be kept; memories so small that they are learned by heart.",
        cost="The batch grows by the replayed samples; the memory is on the device.",
    )
    slots = {"batch": "select"}
    breaks = frozenset({"ids"})
    exempt = {"accumulation": "every micro-batch replays samples of its own"}

    def __init__(
        self, size: int = 500, strength: Strength = 1.0, count: int | None = None, balanced: bool = True
    ) -> None:
        super().__init__()
        for name, number in (("size", size), ("count", 1 if count is None else count)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise TikhonError(f"{name} must be a positive integer, not {number!r}.")
        self.strength = checked("strength", strength, low=0.0)
        self.size, self.count, self.balanced = size, count, balanced
        self.memory = Snapshot()  # "keys" (M,), "target" (M, ...) and every tensor of the inputs by its number

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        strength = step.value(self.strength)
        if not self.memory.tensors or strength == 0.0:
            return inputs, target
        leaves, structure = pytree.tree_flatten(inputs)
        stored = self.memory.tensors
        rows, count = len(target), len(target) if self.count is None else self.count
        self._refuse_misfit(leaves, target.value)
        device = stored["keys"].device
        drawn = torch.randint(len(stored["keys"]), (count,), generator=step.generator(device), device=device)
        both = [torch.cat([leaf, stored[str(i)][drawn].to(leaf)]) for i, leaf in enumerate(leaves)]
        value = torch.cat([target.value, stored["target"][drawn].to(target.value)])
        weight = target.parts[0].weight
        if weight is not None or strength != 1.0:
            own = torch.ones(rows, device=value.device) if weight is None else weight
            weight = torch.cat([own, own.new_full((count,), strength)])
        return pytree.tree_unflatten(both, structure), Target.of(value, None, weight)

    def _refuse_misfit(self, leaves: list[Any], value: Tensor) -> None:
        given = {str(i): leaf for i, leaf in enumerate(leaves)} | {"target": value}
        stored = {name: one for name, one in self.memory.tensors.items() if name != "keys"}
        if given.keys() != stored.keys() or not all(isinstance(one, Tensor) for one in given.values()):
            raise TikhonError(f"{self.key}: the batch's inputs are not as many tensors as those that are stored.")
        for name, one in given.items():
            kept = stored[name]
            if one.shape[1:] != kept.shape[1:] or (name == "target" and one.dtype != kept.dtype):
                raise TikhonError(
                    f"{self.key}: {'the target' if name == 'target' else 'an input'} of {one.dtype} and shape "
                    f"{tuple(one.shape)} does not fit the stored ones of {kept.dtype} and {tuple(kept.shape)}."
                )

    def task_end(self, batches: Iterable[tuple[Any, Tensor]] | None, step: Step) -> None:
        if batches is None:
            raise TikhonError(f"{self.key} stores samples of the task: recipe.end_task(loader).")
        stored = dict(self.memory.tensors)
        for inputs, value in batches:
            leaves = pytree.tree_leaves(inputs)
            rows = len(first_tensor(inputs))
            if not all(isinstance(one, Tensor) and one.shape[:1] == (rows,) for one in (*leaves, value)):
                raise TikhonError(f"{self.key} stores inputs that are tensors with one row a sample.")
            keys = torch.rand(rows, generator=step.generator(value.device), device=value.device)
            new = {"keys": keys, "target": value} | {str(i): leaf for i, leaf in enumerate(leaves)}
            if stored:
                if any(new[name].shape[1:] != one.shape[1:] for name, one in stored.items()):
                    raise TikhonError(f"{self.key}: samples of this task have other shapes than those stored before.")
                new = {name: torch.cat([one, new[name].to(one)]) for name, one in stored.items()}
            classes = self.balanced and new["target"].ndim == 1 and not new["target"].is_floating_point()
            labels = new["target"] if classes else torch.zeros(len(new["keys"]), dtype=torch.int64, device=keys.device)
            kept = kept_samples(new["keys"], labels, self.size)
            stored = {name: one[kept] for name, one in new.items()}
        if not stored:
            raise TikhonError(f"{self.key}: recipe.end_task was given no samples; is the loader empty or used up?")
        self.memory.take(stored)
