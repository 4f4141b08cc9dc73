"""Search spaces: recipes that leave open how strong a method is, and which methods there are.

A space is written as a recipe of the command line, with four more signs:

    l2(strength=1e-5..1e-1) + mixup(alpha=0.1..1.0)?     two numbers to find, the second method perhaps not at all
    (elr | gce(q=0.3..0.9)) + early_stopping              one of the two
    swa(every={"epoch", "step"})                          one of these values

- `low..high` is a number between both: by its logarithm where both are positive and `high` is at least ten times `low`,
  otherwise evenly; a whole number where the argument is one. Found numbers are rounded to four digits.
- `{a, b}` is one of these values.
- `?` behind a method or a bracket: with it or without.
- `|` is one of its sides; `+` binds tighter.

In a file the same may stand on several lines; `#` begins a comment.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tikhon.core.catalogue import methods
from tikhon.core.errors import TikhonError
from tikhon.studies.arms import EARLY_STOPPING, parse_arm

Point = dict[str, float | str]
"""What was drawn, by name."""

LARGEST = 512
"""How many sets of methods a space may hold: each is built before anything is trained."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_SIGNS = re.compile(rf"""("[^"\n]*"|'[^'\n]*')|({_NUMBER})\s*\.\.\s*({_NUMBER})|(\?)|(\#[^\n]*)""")
_BETWEEN = "between__"
_WITH, _WITHOUT = "with", "without"


@dataclass(frozen=True)
class Range:
    """A number in [low, high], drawn by its logarithm or evenly. whole: an integer."""

    low: float
    high: float
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise TikhonError(f"{self.low:g}..{self.high:g} is no range: write low..high with low < high.")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise TikhonError(f"{self.low:g}..{self.high:g} is a range of whole numbers; its ends must be whole too.")

    @property
    def log(self) -> bool:
        return self.low > 0.0 and self.high >= 10.0 * self.low

    @property
    def middle(self) -> float:
        return self.rounded(math.sqrt(self.low * self.high) if self.log else 0.5 * (self.low + self.high))

    def rounded(self, value: float) -> float:
        """The drawn value as it is written: four digits, or a whole number, inside of the range."""
        near = float(round(value)) if self.whole else float(f"{value:.4g}")
        return min(max(near, self.low), self.high)


class Suggest(Protocol):
    """Who draws: a sampler."""

    def number(self, name: str, among: Range) -> float: ...
    def one_of(self, name: str, options: Sequence[str]) -> str: ...


@dataclass(frozen=True)
class Candidate:
    """A recipe with all its numbers."""

    recipe: str
    learning_rate: float


# The parts of a space -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A method; arguments: as text where given, else what is to be found."""

    name: str
    arguments: tuple[tuple[str, str | Range | tuple[str, ...]], ...]

    @property
    def label(self) -> str:
        return self.name

    def draw(self, suggest: Suggest) -> list[str]:
        given = ", ".join(f"{name}={self._value(name, value, suggest)}" for name, value in self.arguments)
        return [f"{self.name}({given})" if given else self.name]

    def _value(self, name: str, value: str | Range | tuple[str, ...], suggest: Suggest) -> str:
        if isinstance(value, Range):
            found = value.rounded(suggest.number(f"{self.name}.{name}", value))
            return repr(int(found) if value.whole else found)
        return value if isinstance(value, str) else suggest.one_of(f"{self.name}.{name}", value)


@dataclass(frozen=True)
class _Sum:
    parts: tuple[_Part, ...]

    @property
    def label(self) -> str:
        return "+".join(part.label for part in self.parts)

    def draw(self, suggest: Suggest) -> list[str]:
        return [call for part in self.parts for call in part.draw(suggest)]


@dataclass(frozen=True)
class _Optional:
    part: _Part

    @property
    def label(self) -> str:
        return f"{self.part.label}?"

    def draw(self, suggest: Suggest) -> list[str]:
        return self.part.draw(suggest) if suggest.one_of(self.part.label, (_WITH, _WITHOUT)) == _WITH else []


@dataclass(frozen=True)
class _OneOf:
    parts: tuple[_Part, ...]

    @property
    def label(self) -> str:
        return f"({' | '.join(part.label for part in self.parts)})"

    def draw(self, suggest: Suggest) -> list[str]:
        labels = [part.label for part in self.parts]
        return self.parts[labels.index(suggest.one_of(self.label[1:-1], labels))].draw(suggest)


_Part = _Call | _Sum | _Optional | _OneOf


# Spaces ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """Recipes to search among. text: as it was written, on one line."""

    text: str
    learning_rate: float | Range
    _root: _Part

    @property
    def methods(self) -> list[str]:
        """The names of all methods that may be drawn."""
        return sorted({call.name for call in _calls(self._root)} - {"none", EARLY_STOPPING})

    def draw(self, suggest: Suggest) -> Candidate:
        """A recipe of the space, every open place filled by `suggest`."""
        calls = [call for call in self._root.draw(suggest) if call != "none"]
        rate = self.learning_rate
        if isinstance(rate, Range):
            rate = rate.rounded(suggest.number("learning_rate", rate))
        return Candidate("+".join(calls) or "none", rate)

    def every(self) -> Iterator[tuple[Point, Candidate]]:
        """Every choice of methods and values, with the numbers in the middle of their ranges."""
        path: list[tuple[int, int]] = []
        while True:
            walk = _Walk([place for place, _ in path])
            candidate = self.draw(walk)
            yield walk.point, candidate
            path = walk.path
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])

    def all_points(self) -> list[Point] | None:
        """All that there is to try, where no number is open; None where there is no end of it."""
        points = []
        for point, _ in self.every():
            if any(isinstance(value, float) for value in point.values()):
                return None
            points.append(point)
        return points


class _Walk:
    """Takes the options that a path names, then always the first, and remembers."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = list(places)
        self.path: list[tuple[int, int]] = []
        self.point: Point = {}

    def number(self, name: str, among: Range) -> float:
        self.point[name] = among.middle
        return among.middle

    def one_of(self, name: str, options: Sequence[str]) -> str:
        place = self._places[len(self.path)] if len(self.path) < len(self._places) else 0
        self.path.append((place, len(options)))
        self.point[name] = options[place]
        return options[place]


def read_space(text: str, learning_rate: float | Range) -> Space:
    """The space that is written in `text`, or in the file of that name.

    Raises `TikhonError` for what is no space, for values that a method does not take, and for methods that cannot be in
    one recipe.

    >>> space = read_space("l2(strength=1e-4..1e-2)? + mixup", learning_rate=0.1)
    >>> [candidate.recipe for _, candidate in space.every()]
    ['l2(strength=0.001)+mixup', 'mixup']
    """
    path = Path(text)
    if "(" not in text and path.suffix and path.is_file():
        text = path.read_text(encoding="utf-8")
    plain = " ".join(re.sub(_SIGNS, lambda sign: "" if sign[5] else sign[0], text).split())
    if not plain:
        raise TikhonError("The space is empty: write for example l2(strength=1e-5..1e-1) + mixup(alpha=0.1..1.0)?")
    space = Space(plain, learning_rate, _parsed(plain))
    _refuse_twofold(space)
    for number, (_, candidate) in enumerate(space.every()):
        if number == LARGEST:
            raise TikhonError(
                f"The space holds more than {LARGEST} sets of methods and values: make fewer methods optional, or "
                "write alternatives, as in (elr | gce)."
            )
        parse_arm(candidate.recipe)
    for call in _calls(space._root):
        _refuse_ends(call)
    return space


def read_rate(text: str) -> float | Range:
    """A learning rate, `0.1`, or where to look for it, `0.01..0.3`."""
    match = re.fullmatch(rf"\s*({_NUMBER})\s*(?:\.\.\s*({_NUMBER})\s*)?", text)
    if match is None or float(match[1]) <= 0.0:
        raise TikhonError(f"The learning rate is a positive number or a range of them, as in 0.01..0.3, not {text!r}.")
    return float(match[1]) if match[2] is None else Range(float(match[1]), float(match[2]))


def _parsed(text: str) -> _Part:
    def sign(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        return "[...]" if match[4] else f"{_BETWEEN}({match[2]}, {match[3]})"

    try:
        return _part(ast.parse(f"({re.sub(_SIGNS, sign, text)})", mode="eval").body, text)
    except SyntaxError as error:
        raise TikhonError(
            f"{text!r} is no space of recipes: write methods joined by +, with low..high for a number to find, "
            "? behind what may be left out and | between alternatives, as in l2(strength=1e-5..1e-1) + mixup?"
        ) from error


def _part(node: ast.expr, text: str) -> _Part:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _Sum((_part(node.left, text), _part(node.right, text)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = (_part(node.left, text), _part(node.right, text))
        parts = tuple(one for side in sides for one in (side.parts if isinstance(side, _OneOf) else (side,)))
        if len({part.label for part in parts}) < len(parts):
            raise TikhonError(f"In {text!r}: two alternatives are the same methods; write one, with wider ranges.")
        return _OneOf(parts)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value is ...:
        return _Optional(_part(node.value, text))
    if isinstance(node, ast.Name):
        return _Call(node.id, ())
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        name = node.func.id
        return _Call(name, tuple((word.arg, _open(name, word, text)) for word in node.keywords if word.arg))
    raise TikhonError(f"In {text!r}: write a method as name or name(argument=value, ...), not {_readable(node)!r}.")


def _open(method: str, word: ast.keyword, text: str) -> str | Range | tuple[str, ...]:
    node = word.value
    if isinstance(node, ast.Set):
        options = tuple(ast.unparse(one) for one in node.elts)
        if len(set(options)) < 2 or len(set(options)) < len(options):
            raise TikhonError(f"In {text!r}: {_readable(node)} must be two or more different values.")
        return options
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == _BETWEEN:
        low, high = (float(ast.literal_eval(end)) for end in node.args)
        try:
            return Range(low, high, whole=_whole(method, word.arg or ""))
        except TikhonError as error:
            raise TikhonError(f"In {text!r}, {method}({word.arg}=...): {error}") from None
    if any(isinstance(one, ast.Name) and one.id == _BETWEEN for one in ast.walk(node)):
        raise TikhonError(f"In {text!r}: a range stands for a whole argument, not inside of {_readable(node)!r}.")
    return ast.unparse(node)


def _whole(method: str, argument: str) -> bool:
    """Whether the method takes integers there."""
    listing = methods().get(method)
    if listing is None:
        return False  # said by parse_arm, with near misses
    parameter = inspect.signature(listing.load().__init__).parameters.get(argument)
    return parameter is not None and str(parameter.annotation).split(" | ")[0] in ("int", "<class 'int'>")


def _readable(node: ast.expr) -> str:
    text = re.sub(rf"{_BETWEEN}\(([^,]*), ([^)]*)\)", r"\1..\2", ast.unparse(node))
    return text.replace("[...]", "?")


def _calls(part: _Part) -> Iterator[_Call]:
    if isinstance(part, _Call):
        yield part
    else:
        for one in (part.part,) if isinstance(part, _Optional) else part.parts:
            yield from _calls(one)


def _refuse_twofold(space: Space) -> None:
    """A sampler knows a place by its name, so one name is one range."""
    found: dict[str, str | Range | tuple[str, ...]] = {}
    for call in _calls(space._root):
        for name, value in call.arguments:
            if not isinstance(value, str) and found.setdefault(f"{call.name}.{name}", value) != value:
                raise TikhonError(
                    f"In {space.text!r}: {call.name}({name}=...) is open in two places and differs: write it alike."
                )


def _refuse_ends(call: _Call) -> None:
    """What a method does not take at one end of a range."""
    for end in ("low", "high"):
        parse_arm(call.draw(_End(end))[0])


class _End:
    """Every number at one end of its range; of options the first."""

    def __init__(self, end: str) -> None:
        self._end = end

    def number(self, name: str, among: Range) -> float:
        return float(getattr(among, self._end))

    def one_of(self, name: str, options: Sequence[str]) -> Any:
        return options[0]
