"""Every public function of tensors computes or refuses, whatever it is given.

From inputs that it documents (other sizes, one row or none, values at the edges) it gives finite numbers or an error;
from inputs of the wrong shape, type or value an error, or numbers; never a crash, a hang, or an exception that is
nobody's. A few hundred calls are tried here; `TIKHON_FUZZ=10000 python -m pytest -s tests/fuzz` tries as many as you
say.
"""

from __future__ import annotations

import math
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from laws.rows import FUNCTIONS, Draw, Function, public_functions
from tikhon import Recipe, Target, TikhonError, cosine, data, exponential, linear
from tikhon.blocks.quantization.aqt import AQTLinear
from tikhon.blocks.stochastic.subsampled_attention import SubsampledAttention
from tikhon.blocks.structure.latent_quant import LatentQuantizer
from tikhon.solvers.structure.supervised_dictionary import SupervisedDictionary

EXAMPLES = int(os.environ.get("TIKHON_FUZZ", "300"))
SECONDS = 20
REFUSALS = (TikhonError, RuntimeError, ValueError, TypeError, IndexError, ArithmeticError)
"""What tikhon, torch and Python's numbers say at once of arguments that do not do."""

COUNTS: Counter[str] = Counter()

EDGES: dict[str, Callable[[Tensor], Tensor]] = {
    "other": lambda values: values,
    "equal": lambda values: torch.full_like(values, 0.7),
    "small": lambda values: 1e-6 * values,
    "large": lambda values: 30.0 * values,
    "zero": torch.zeros_like,
}
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "empty": lambda values: values[:0],
    "one": lambda values: values[:1],
    "short": lambda values: values[:-1],
    "scalar": lambda values: values.flatten()[0],
    "longer": lambda values: values[None],
    "flat": lambda values: values.flatten(),
    "turned": lambda values: values.mT,
    "int": lambda values: values.long(),
    "bool": lambda values: values > 0,
    "half": lambda values: values.half(),
    "bfloat16": lambda values: values.bfloat16(),
    "float32": lambda values: values.float(),
    "complex": lambda values: values.to(torch.complex128),
    "nan": lambda values: values * math.nan,
    "inf": lambda values: values * math.inf,
    "huge": lambda values: values * 1e300,
    "zeros": torch.zeros_like,
    "negative": lambda values: -values,
    "meta": lambda values: values.to("meta"),
}
SCALARS = [0, 1, -1, 3, 50, 0.0, 0.5, 1.0, -0.5, 1e-30, 1e30, math.nan, math.inf, -math.inf, True, None, "x"]

OTHERS: dict[str, tuple[Callable[..., Any], Function]] = {
    "data.asymmetric_noise": (
        data.asymmetric_noise,
        Function(lambda d: (d.labels(12, 3), 0.3, 3, d.generator), smallest=2),
    ),
    "data.blur": (data.blur, Function(lambda d: (d.normal(2, 1, 6, 6), 0.7))),
    "data.gaussian_noise": (data.gaussian_noise, Function(lambda d: (d.normal(5, 3), 0.1, d.generator))),
    "data.imbalance": (data.imbalance, Function(lambda d: (torch.arange(12) % 3, 2.0, d.generator))),
    "data.rotate": (data.rotate, Function(lambda d: (d.normal(2, 1, 5, 6), 30.0))),
    "data.symmetric_noise": (
        data.symmetric_noise,
        Function(lambda d: (d.labels(12, 3), 0.3, 3, d.generator), smallest=2),
    ),
    "data.value_noise": (
        data.value_noise,
        Function(lambda d: (d.normal(5, 3), torch.ones(()), d.generator)),
    ),
    "blocks.attention": (SubsampledAttention(6, 2).eval().double(), Function(lambda d: (d.normal(2, 5, 6),))),
    "blocks.latents": (LatentQuantizer(3).eval().double(), Function(lambda d: (d.normal(5, 3),))),
    "blocks.quantized": (AQTLinear(3, 4).eval().double(), Function(lambda d: (d.normal(5, 3),))),
    "losses.classes": (Recipe().criterion.mean, Function(lambda d: (d.normal(5, 3), d.labels(5, 3)))),
    "losses.soft": (Recipe().criterion.mean, Function(lambda d: (d.normal(5, 3), d.probabilities(5, 3)))),
    "losses.values": (
        Recipe(base=F.mse_loss).criterion.mean,
        Function(lambda d: (d.normal(5, 3), d.normal(5, 3))),
    ),
    "schedules.cosine": (cosine, Function(lambda d: (0.1, 1.0))),
    "schedules.exponential": (exponential, Function(lambda d: (0.1, 1.0))),
    "schedules.linear": (linear, Function(lambda d: (0.1, 1.0))),
    "solvers.dictionary": (
        lambda x, labels: SupervisedDictionary(2, iterations=20).fit(x, labels).scores(x),
        Function(lambda d: (d.normal(6, 4), torch.arange(6) % 3)),
    ),
    "target.dense": (
        lambda values, classes: Target.of(values).dense(classes),
        Function(lambda d: (d.labels(5, 3), 3)),
    ),
    "target.smooth": (
        lambda values, by: Target.of(values).smooth(by).dense(3),
        Function(lambda d: (d.probabilities(5, 3), 0.1)),
    ),
}
"""Further public functions and layers, and inputs for them."""

FOUND = public_functions() | {key: function for key, (function, _) in OTHERS.items()}
ROWS = dict(FUNCTIONS) | {key: row for key, (_, row) in OTHERS.items()}
TABLED = sorted(set(FOUND) & set(ROWS))


class Edges(Draw):
    """Valid inputs at the edges: sizes of one number become another everywhere, values those of an edge."""

    def __init__(self, seed: int, sizes: dict[int, int], edge: str) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.sizes, self.edge = sizes, edge

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.sizes.get(size, size) for size in shape)

    def normal(self, *shape: int) -> Tensor:
        return EDGES[self.edge](super().normal(*self._shape(shape)))

    def positive(self, *shape: int) -> Tensor:
        values = super().positive(*self._shape(shape))
        return values if self.edge == "zero" else EDGES[self.edge](values)

    def probabilities(self, *shape: int) -> Tensor:
        values = super().probabilities(*self._shape(shape))
        if self.edge == "equal":
            return torch.full_like(values, 1.0 / max(1, values.shape[-1]))
        if self.edge == "zero" and values.numel():
            return F.one_hot(values.argmax(-1), values.shape[-1]).to(values)
        return values

    def permutation(self, size: int) -> Tensor:
        return super().permutation(self.sizes.get(size, size))

    def labels(self, size: int, classes: int) -> Tensor:
        found = super().labels(self.sizes.get(size, size), classes)
        return torch.zeros_like(found) if self.edge in ("equal", "zero") else found


@contextmanager
def limited(what: str) -> Iterator[None]:
    """A call that does not come back is a failure, not a job that hangs."""

    def late(*_: Any) -> None:
        raise AssertionError(f"{what} took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def called(key: str, arguments: Any) -> list[Tensor] | None:
    """The tensors that a function gives, or None where it refuses."""
    try:
        with limited(key):
            result = FOUND[key](*arguments)
    except REFUSALS:
        return None
    except AssertionError as error:
        if "torch" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts:
            raise
        return None  # as torch.func says that there are no rows
    result = arguments[0] if ROWS[key].in_place else result
    return [one for one in pytree.tree_leaves(result) if isinstance(one, Tensor)]


def drawn(key: str, arguments: Any) -> list[Tensor] | None:
    """`called` with arguments that were drawn, and counted."""
    found = called(key, arguments)
    COUNTS["refused" if found is None else "computed"] += 1
    return found


def numbers(values: Any) -> list[Tensor]:
    return [one for one in pytree.tree_leaves(values) if isinstance(one, Tensor) and one.is_floating_point()]


def finite(values: Any) -> bool:
    return all(bool(one.isfinite().all()) for one in numbers(values))


def valid_arguments(key: str, seed: int, size: int, becomes: int, edge: str) -> tuple[Any, ...] | None:
    """What the row makes of other draws; None where it cannot, or where that is no longer what it documents."""
    if 0 < becomes < ROWS[key].smallest:
        return None
    try:
        arguments = ROWS[key].arguments(Edges(seed, {size: becomes}, edge))
    except REFUSALS:
        return None
    return arguments if finite(arguments) and ROWS[key].valid(*arguments) else None


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(
    key=st.sampled_from(TABLED),
    seed=st.integers(0, 10**6),
    size=st.integers(2, 12),
    becomes=st.sampled_from([0, 1, 2, 3, 7]),
    edge=st.sampled_from(sorted(EDGES)),
)
def test_valid_inputs_give_finite_numbers(key: str, seed: int, size: int, becomes: int, edge: str) -> None:
    arguments = valid_arguments(key, seed, size, becomes, edge)
    assume(arguments is not None)
    found = drawn(key, arguments)
    # The mean of nothing is NaN, in torch as here.
    if (
        found is None
        or not ROWS[key].finite
        or any(not one.numel() for one in pytree.tree_leaves(arguments) if isinstance(one, Tensor))
    ):
        return
    assert finite(found), f"{key} gives {found} from {arguments}"


@st.composite
def wrong_arguments(draw: Any) -> tuple[str, Any]:
    key = draw(st.sampled_from(TABLED))
    leaves, structure = pytree.tree_flatten(ROWS[key].arguments(Draw()))
    for place in draw(st.lists(st.sampled_from(range(len(leaves))), min_size=1, max_size=2, unique=True)):
        value = leaves[place]
        if isinstance(value, Tensor):
            try:
                leaves[place] = WRONG[draw(st.sampled_from(sorted(WRONG)))](value)
            except REFUSALS:  # a scalar has no first row
                assume(False)
        elif isinstance(value, (int, float, type(None))):
            leaves[place] = draw(st.sampled_from(SCALARS))
    return key, pytree.tree_unflatten(leaves, structure)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(wrong_arguments())
def test_wrong_inputs_are_computed_or_refused_at_once(wrong: tuple[str, Any]) -> None:
    drawn(*wrong)


def strided(value: Any) -> Any:
    """The same numbers in memory with gaps."""
    if not isinstance(value, Tensor) or not value.ndim:
        return value
    return torch.stack([value, torch.zeros_like(value)], dim=-1)[..., 0]


@pytest.mark.parametrize("key", TABLED)
def test_memory_with_gaps_makes_no_difference(key: str) -> None:
    plain = called(key, ROWS[key].arguments(Draw()))
    gaps = called(key, pytree.tree_map(strided, ROWS[key].arguments(Draw())))
    assert plain is not None
    assert gaps is not None
    for one, other in zip(plain, gaps, strict=True):
        torch.testing.assert_close(other, one)


def test_both_happened() -> None:
    """What was counted, so that draws of which every one is refused show."""
    print(dict(COUNTS))
    if sum(COUNTS.values()) > EXAMPLES:
        assert min(COUNTS["computed"], COUNTS["refused"]) > sum(COUNTS.values()) / 20
