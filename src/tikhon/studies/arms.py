"""Arms: what a user writes to name a recipe, as in `elr(strength=3.0)+mixup`."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tikhon.core.catalogue import Listing, find, methods
from tikhon.core.combine import During
from tikhon.core.errors import TikhonError, near_misses
from tikhon.core.method import Method
from tikhon.core.strength import Schedule, cosine, exponential, linear, logistic, stepwise

EARLY_STOPPING = "early_stopping"
"""Not a method but what an arm does with its validation split: keep the epoch that was best there."""

_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "logistic": logistic,
    "stepwise": stepwise,
}

Given = Callable[[Listing], Mapping[str, Any]]
"""Arguments of a method that no text can hold, such as the domains of the training samples."""


def nothing(listing: Listing) -> Mapping[str, Any]:
    """What most methods are given beside the text."""
    return {}


@dataclass(frozen=True)
class Arm:
    """One way of training: fresh methods at every call of `methods()`, and whether the best epoch is kept."""

    name: str
    calls: tuple[tuple[Listing, dict[str, Any]], ...]
    early_stopping: bool
    given: Given = nothing

    def methods(self) -> list[Method | During]:
        made: list[Method | During] = []
        for listing, arguments in self.calls:
            try:
                made.append(listing.load()(**{**self.given(listing), **arguments}))
            except TypeError as error:
                raise TikhonError(f"{listing.name} in the arm {self.name!r}: {error}.") from error
        return made

    def sources(self) -> dict[str, str]:
        """A hash of the source of each method: results of an older source are not results of this one."""
        return {listing.name: source_hash(listing.path) for listing, _ in self.calls}


def example(name: str) -> str:
    """A method as one writes it in a recipe, with the arguments of its card's example: "mixup", "pissa(rank=2)"."""
    given = methods()[name].card.example
    return f"{name}({given})" if given else name


def source_hash(path: Path) -> str:
    """Of a file without its docstrings: results hold as long as the code is the same, whatever is said about it."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            last = node.end_lineno or node.lineno
            lines[node.lineno - 1 : last] = [""] * (last - node.lineno + 1)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def parse_arm(text: str, given: Given = nothing) -> Arm:
    """`none`, or methods joined by `+`, each a name or `name(argument=value, ...)`.

    Values are Python literals or schedules, as in `l2(strength=linear(0, 0.001))`. given: further arguments of each
    method. Raises `TikhonError` with near misses for an unknown name.

    >>> parse_arm("none").calls
    ()
    """
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise TikhonError(
            f"{text!r} is not a recipe: write names joined by +, such as elr(strength=3)+mixup."
        ) from error
    calls: list[tuple[Listing, dict[str, Any]]] = []
    early_stopping = False
    for node in _addends(tree):
        name, arguments = _call(node, text)
        if name == "none":
            continue
        if name == EARLY_STOPPING:
            early_stopping = True
            continue
        known = {*methods(), EARLY_STOPPING, "none"}
        if name not in known:
            raise TikhonError(f"There is no method {name!r}. {near_misses(name, known)} `tikhon list` shows all.")
        calls.append((find(name), arguments))
    arm = Arm(text, tuple(calls), early_stopping, given)
    arm.methods()  # wrong arguments are refused here, not in a worker
    return arm


def split_arms(text: str) -> list[str]:
    """Split at commas that are not inside parentheses: `none,elr(strength=3, momentum=0.9)` are two arms."""
    arms, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            arms.append(text[start:position])
            start = position + 1
    arms.append(text[start:])
    return [arm.strip() for arm in arms if arm.strip()]


def _addends(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _addends(node.left) + _addends(node.right)
    return [node]


def _call(node: ast.expr, text: str) -> tuple[str, dict[str, Any]]:
    if isinstance(node, ast.Name):
        return node.id, {}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return node.func.id, {word.arg: _value(word.value, text) for word in node.keywords if word.arg}
    raise TikhonError(f"In {text!r}: write a method as name or name(argument=value, ...), not {ast.unparse(node)!r}.")


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SCHEDULES:
        arguments = [_value(one, text) for one in node.args]
        words = {word.arg: _value(word.value, text) for word in node.keywords if word.arg}
        return _SCHEDULES[node.func.id](*arguments, **words)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise TikhonError(
            f"In {text!r}: {ast.unparse(node)!r} is neither a Python literal nor a schedule ({', '.join(_SCHEDULES)})."
        ) from error
