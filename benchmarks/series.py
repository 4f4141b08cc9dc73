"""What is measured against its size: each function below builds, for one size, the call that is timed.

A series says what grows and which power of it the mathematics asks for. A `TrainingStep` counts with what it keeps
between steps; of other calls the memory is what comes and goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import tikhon as tk
from tikhon.math.sinkhorn import sinkhorn
from tikhon.methods.sparsity.wgsef import envelope_prox
from tikhon.studies.cost import TrainingStep

BATCH, CLASSES, FEATURES = 128, 10, 32

METHODS: tuple[Callable[[], tk.Method], ...] = (
    tk.LabelSmoothing,
    lambda: tk.MixUp(alpha=0.4),
    tk.L2,
    tk.EMA,
    tk.ELR,
    tk.ConfidencePenalty,
    tk.GradientCentralisation,
    lambda: tk.ClipGradNorm(1.0),
)
"""Of all moments of a step; a recipe of n has the first n."""


@dataclass(frozen=True)
class Series:
    """axis: what grows; time, memory: the powers of it that the mathematics asks for; None: memory is not the point."""

    name: str
    axis: str
    sizes: tuple[int, ...]
    call: Callable[[int], Callable[[], object]]
    time: float
    memory: float | None
    note: str


_series: list[Series] = []


def series(
    name: str, *, axis: str, sizes: Sequence[int], time: float = 1.0, memory: float | None = None, note: str = ""
) -> Callable[[Callable[[int], Callable[[], object]]], Callable[[int], Callable[[], object]]]:
    """Make the function below, which builds the call of a size, a series of the page."""

    def keep(call: Callable[[int], Callable[[], object]]) -> Callable[[int], Callable[[], object]]:
        _series.append(Series(name, axis, tuple(sizes), call, time, memory, note))
        return call

    return keep


def all_series() -> list[Series]:
    """Those of this file, in the order of their lines."""
    return list(_series)


def _sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)  # type: ignore[arg-type]


def _on_logits(
    method: tk.Method, batch: int = BATCH, classes: int = CLASSES, samples: int | None = None
) -> TrainingStep:
    """A step in which there is little beside the loss: two layers from a few features to the classes."""
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, classes))
    inputs, target = torch.randn(batch, FEATURES), torch.randint(classes, (batch,))
    return TrainingStep(tk.Recipe(method), model, inputs, target, _sgd, samples)


def _on_weights(method: tk.Method, parameters: int) -> TrainingStep:
    """A step on few samples, of a network that is nearly all weights: four layers of equal width."""
    width = round((parameters / 4) ** 0.5)
    layers = [nn.Linear(width, width, bias=False) for _ in range(4)]
    return TrainingStep(
        tk.Recipe(method), nn.Sequential(*layers), torch.randn(4, width), torch.randint(width, (4,)), _sgd
    )


# Losses against the batch and the classes ----------------------------------------------------------------------------

BATCHES = tuple(2**power for power in range(7, 16))
MANY_CLASSES = tuple(2**power for power in range(4, 14))


@series("label smoothing: batch", axis="samples in the batch", sizes=BATCHES, memory=1.0)
def smoothing_batch(size: int) -> TrainingStep:
    return _on_logits(tk.LabelSmoothing(), batch=size)


@series("label smoothing: classes", axis="classes", sizes=MANY_CLASSES, memory=1.0)
def smoothing_classes(size: int) -> TrainingStep:
    return _on_logits(tk.LabelSmoothing(), classes=size)


@series("ELR: batch", axis="samples in the batch", sizes=BATCHES, memory=1.0)
def elr_batch(size: int) -> TrainingStep:
    return _on_logits(tk.ELR(), batch=size)


@series("ELR: classes", axis="classes", sizes=MANY_CLASSES, memory=1.0)
def elr_classes(size: int) -> TrainingStep:
    return _on_logits(tk.ELR(), classes=size)


@series(
    "ELR: training set",
    axis="samples in the training set",
    sizes=tuple(2**power for power in range(12, 22)),
    time=0.0,
    memory=1.0,
    note="a memory of all samples, of which a step touches the batch's",
)
def elr_samples(size: int) -> TrainingStep:
    return _on_logits(tk.ELR(), samples=size)


@series("MixUp: batch", axis="samples in the batch", sizes=BATCHES, memory=1.0)
def mixup_batch(size: int) -> TrainingStep:
    return _on_logits(tk.MixUp(alpha=0.4), batch=size)


@series("MixUp: classes", axis="classes", sizes=MANY_CLASSES, memory=1.0)
def mixup_classes(size: int) -> TrainingStep:
    return _on_logits(tk.MixUp(alpha=0.4), classes=size)


@series(
    "SupCon: batch", axis="samples in the batch", sizes=BATCHES[:6], time=2.0, memory=2.0, note="all pairs of a batch"
)
def supcon_batch(size: int) -> TrainingStep:
    return _on_logits(tk.SupCon(), batch=size)


# Sweeps over parameters ----------------------------------------------------------------------------------------------

PARAMETERS = tuple(2**power for power in range(14, 25, 2))


@series("L2: parameters", axis="parameters", sizes=PARAMETERS, memory=1.0)
def l2_parameters(size: int) -> TrainingStep:
    return _on_weights(tk.L2(1e-4), size)


@series("EMA: parameters", axis="parameters", sizes=PARAMETERS, memory=1.0)
def ema_parameters(size: int) -> TrainingStep:
    return _on_weights(tk.EMA(), size)


@series("SAM: parameters", axis="parameters", sizes=PARAMETERS, memory=1.0)
def sam_parameters(size: int) -> TrainingStep:
    return _on_weights(tk.SAM(), size)


@series(
    "proximal map of the group envelope: groups",
    axis="groups",
    sizes=tuple(10**power for power in range(3, 8)),
    memory=1.0,
    note="n log n: two sorts",
)
def envelope(size: int) -> Callable[[], Tensor]:
    norms = torch.rand(size).square()
    return lambda: envelope_prox(norms, strength=0.03, k=size / 2)


# Groups and methods --------------------------------------------------------------------------------------------------

GROUPS = tuple(2**power for power in range(1, 11))


@series("GroupDRO: groups", axis="groups", sizes=GROUPS, note="a batch of 1,024; an upper bound, groups times batch")
def dro_groups(size: int) -> TrainingStep:
    return _on_logits(tk.GroupDRO(torch.arange(1024) % size), batch=1024)


@series("IRM: groups", axis="groups", sizes=GROUPS, note="a batch of 1,024; an upper bound, groups times batch")
def irm_groups(size: int) -> TrainingStep:
    return _on_logits(tk.IRM(torch.arange(1024) % size), batch=1024)


@series(
    "recipe: methods", axis="methods in the recipe", sizes=range(1, 9), note="of an MLP 64-256-256-10, batch of 128"
)
def recipe_methods(size: int) -> TrainingStep:
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES))
    recipe = tk.Recipe(*(make() for make in METHODS[:size]))
    return TrainingStep(recipe, model, torch.rand(BATCH, 64), torch.randint(CLASSES, (BATCH,)), _sgd)


# Measures and solvers ------------------------------------------------------------------------------------------------


@series("expected calibration error: samples", axis="samples", sizes=[10**power for power in range(3, 8)], memory=1.0)
def calibration(size: int) -> Callable[[], Tensor]:
    probabilities, target = torch.randn(size, CLASSES).softmax(1), torch.randint(CLASSES, (size,))
    return lambda: tk.expected_calibration_error(probabilities, target, bins=15)


def _squared_distances(size: int) -> Tensor:
    """Of points of the unit square, in float64: (n, n)."""
    return torch.cdist(*torch.rand(2, size, 2, dtype=torch.float64)).square()


POINTS = (64, 128, 256, 512, 1024)


@series("sinkhorn: points", axis="points", sizes=POINTS, time=2.0, memory=2.0, note="epsilon 0.05, to 1e-9")
def entropic(size: int) -> Callable[[], object]:
    cost = _squared_distances(size)
    return lambda: sinkhorn(cost, epsilon=0.05)


@series(
    "sinkhorn_newton_sparse: points", axis="points", sizes=POINTS, time=2.0, memory=2.0, note="epsilon 0.001, to 1e-9"
)
def newton(size: int) -> Callable[[], object]:
    cost = _squared_distances(size)
    return lambda: tk.sinkhorn_newton_sparse(cost)


@series("sparse_ot: points", axis="points", sizes=POINTS, time=2.0, memory=2.0, note="k 4, gamma 0.1")
def sparse(size: int) -> Callable[[], object]:
    cost = _squared_distances(size)
    return lambda: tk.sparse_ot(cost, k=4)
