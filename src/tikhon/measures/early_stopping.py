"""Early stopping: end training when the validation score has not risen for a while, and return to where it was best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tikhon.core.best import Best
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.recipe import Recipe

__all__ = ["EarlyStopping"]

card = Card(
    title="Early Stopping - But When?",
    authors="Prechelt",
    year=1998,
    arxiv="",
    problems=("overfitting", "noisy-labels", "speed"),
    formula=r"\text{stop at } t:\ \max_{s\le t-p} v_s \ge \max_{t-p<s\le t} v_s",
    claim="Stopping late generalises a little better than stopping early, and costs several times the training.",
    helps="Networks whose validation score rises and falls again: over-fitting, wrong labels.",
    hurts="Small validation sets, whose best epoch is luck; schedules that need their last steps; late double descent.",
    cost="A copy of model and recipe when the score rises; the validation passes.",
    neutral="",
    kind="decision rule",
)


class EarlyStopping:
    """Say after every epoch how good it was; it says when to stop, and puts the best epoch back.

    Use it with every method and in every loop of your own; `fit(keep_best=...)` does the same in tikhon's. Model and
    recipe return together, so that averages, gates and masks are those of the best epoch. Not where the validation set
    is so small that its best epoch is luck.

    recipe: prepared; patience: after how many epochs without a better score to stop, at least 1; margin: by how much a
    score must be above the best to count, at least 0, in units of the score. More is better: of a loss pass `-loss`.
    A score that is not a number counts as no better.

    Cost: a copy of the model and of the recipe's state whenever the score rises.
    Reference: Prechelt 1998, Early Stopping - But When?, criterion UP with the best score so far in place of the last.

    >>> recipe = tikhon.Recipe(tikhon.L2(1e-4))
    >>> model = recipe.prepare(torch.nn.Linear(3, 2))
    >>> stopping = tikhon.EarlyStopping(recipe, patience=2)
    >>> [stopping.update(score) for score in (0.7, 0.9, 0.8, 0.6)]
    [False, False, False, True]
    >>> stopping.best_epoch
    1
    >>> stopping.restore()
    """

    def __init__(self, recipe: Recipe, patience: int = 10, margin: float = 0.0) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise TikhonError(f"patience must be a positive integer, a number of epochs, not {patience!r}.")
        if not 0.0 <= margin < float("inf"):
            raise TikhonError(f"margin must be finite and at least 0, not {margin!r}.")
        self.patience, self.margin = patience, margin
        self.epoch = 0
        self.best_epoch: int | None = None
        self._best = Best(recipe)

    @property
    def best_score(self) -> float:
        """The best score so far; -inf before there is one."""
        return self._best.score

    def update(self, score: float) -> bool:
        """Say how good the epoch was that has just ended, of `recipe.deployed()`; True where training should stop."""
        if self._best.improved(float(score), self.margin):
            self.best_epoch = self.epoch
        self.epoch += 1
        waited = self.epoch - 1 - (-1 if self.best_epoch is None else self.best_epoch)
        return waited >= self.patience

    def restore(self) -> None:
        """Put model and recipe back to the best epoch; before `recipe.export()`."""
        self._best.restore()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, the best epoch's weights among them."""
        return {"epoch": self.epoch, "best_epoch": self.best_epoch, "best": self._best.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self._best.load_state_dict(state["best"])
