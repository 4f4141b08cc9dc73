"""Best: the training at its best score so far, model and recipe together, to return to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tikhon.core.errors import TikhonError
from tikhon.core.rollback import Rollback

if TYPE_CHECKING:
    from tikhon.core.recipe import Recipe


class Best:
    """A copy of the prepared model's and the recipe's state, taken whenever the score is the best so far.

    The recipe belongs to it because export needs both from one moment: averages, gates and masks are the recipe's.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.model is None:
            raise TikhonError("The recipe has no model yet: call recipe.prepare(model) first.")
        self._rollback = Rollback(recipe.model, recipe)
        self.score = -math.inf

    def improved(self, score: float, margin: float = 0.0) -> bool:
        """Whether the score, of which more is better, is above the best by more than `margin`; then keep this state."""
        better = score > self.score + margin  # never for NaN
        if better:
            self.score = score
            self._rollback.take()
        return better

    def restore(self) -> None:
        """Put model and recipe back to where the score was best; does nothing where no score was a number."""
        self._rollback.put_back()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"score": self.score, "kept": self._rollback.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.score = state["score"]
        self._rollback.taken = state["kept"]
