"""Best: the training at its best score so far, model and recipe together, to return to."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tikhon.core.errors import TikhonError

if TYPE_CHECKING:
    from tikhon.core.recipe import Recipe


class Best:
    """A copy of the prepared model's and the recipe's state, taken whenever the score is the best so far.

    The recipe belongs to it because export needs both from one moment: averages, gates and masks are the recipe's.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.model is None:
            raise TikhonError("The recipe has no model yet: call recipe.prepare(model) first.")
        self._recipe = recipe
        self._kept: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.score = -math.inf

    def improved(self, score: float, margin: float = 0.0) -> bool:
        """Whether the score, of which more is better, is above the best by more than `margin`; then keep this state."""
        better = score > self.score + margin  # never for NaN
        if better:
            assert self._recipe.model is not None
            self.score = score
            self._kept = copy.deepcopy((self._recipe.model.state_dict(), self._recipe.state_dict()))
        return better

    def restore(self) -> None:
        """Put model and recipe back to where the score was best; does nothing where no score was a number."""
        if self._kept is not None:
            assert self._recipe.model is not None
            self._recipe.model.load_state_dict(self._kept[0])
            self._recipe.load_state_dict(self._kept[1])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"score": self.score, "kept": None if self._kept is None else list(self._kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.score = state["score"]
        self._kept = None if state["kept"] is None else (state["kept"][0], state["kept"][1])
