"""Saving and loading: the state of a recipe as tensors and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tikhon.core.batches import map_tensors
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.run import Run
from tikhon.core.tuning import Tuning

FORMAT = 2


def save_state(run: Run, methods: Mapping[str, Method], tuning: Tuning | None) -> dict[str, Any]:
    state = {
        "format": FORMAT,
        "seed": run.seed,
        "clock": run.clock.state(),
        "skipped": run.skipped.state(),
        "methods": {key: method.state_dict() for key, method in methods.items()},
    }
    return state if tuning is None else {**state, "tuning": tuning.state()}


def refuse_foreign(run: Run, methods: Mapping[str, Method], state: Mapping[str, Any]) -> None:
    """What can be known to be wrong with a state, also before there is a model."""
    if not isinstance(state, Mapping) or not {"format", "seed", "methods"} <= set(state):
        raise TikhonError("This is not the state of a recipe: pass what recipe.state_dict() returned.")
    if state["format"] != FORMAT:
        raise TikhonError(f"This state has format {state['format']}; this version of tikhon reads format {FORMAT}.")
    if (
        not _counters(state.get("clock"), run.clock.state())
        or not _counters(state.get("skipped"), run.skipped.state())
        or not isinstance(state["methods"], Mapping)
    ):
        raise TikhonError("The state is damaged: its counters or its methods are not what state_dict() writes.")
    if set(state["methods"]) != set(methods):
        raise TikhonError(
            f"The state is of a recipe with {', '.join(sorted(state['methods'])) or 'no methods'}; "
            f"this one has {', '.join(sorted(methods)) or 'none'}."
        )
    tuned = state.get("tuning", {}).get("strengths", {})
    if set(tuned) != set(run.names.values()):
        raise TikhonError(
            f"The state is of a recipe that learns {', '.join(sorted(tuned)) or 'no strength'}; "
            f"this one learns {', '.join(sorted(run.names.values())) or 'none'}."
        )
    if state["seed"] != run.seed:
        raise TikhonError(f"The state is of a recipe with seed={state['seed']}; this one has seed={run.seed}.")


def load_state(run: Run, methods: Mapping[str, Method], state: Mapping[str, Any], tuning: Tuning | None) -> None:
    """Load all or nothing."""
    refuse_foreign(run, methods, state)
    if run.names and tuning is None:
        raise TikhonError(
            "The state of learned strengths is loaded once the recipe knows how: call recipe.tune before."
        )
    if not run.prepared:
        raise TikhonError("A state is loaded last: first prepare, then the optimizer, attach, and load_state_dict.")
    before = {key: _copy(method.state_dict()) for key, method in methods.items()}
    try:
        for key, method in methods.items():
            method.load_state_dict(map_tensors(lambda tensor: tensor.to(run.device), state["methods"][key]))
    except Exception as error:
        for name, method in methods.items():
            method.load_state_dict(before[name])
        raise TikhonError(f"The state does not fit this recipe's {key}; nothing was changed. {error}") from error
    run.clock.load(state["clock"])
    run.skipped.load(state["skipped"])
    if tuning is not None:
        tuning.load(state["tuning"])


def _counters(given: Any, known: Mapping[str, int]) -> bool:
    return (
        isinstance(given, Mapping)
        and given.keys() == known.keys()
        and all(isinstance(value, int) and value >= 0 for value in given.values())
    )


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_copy(one) for one in value]
    return value.clone() if hasattr(value, "clone") else value
