"""What the laws need to know of a method beyond its card: one row, and only where the defaults do not do.

A method without a row is made with the arguments of `card.example` (or none), and its neutral arguments are those of
`card.neutral`. A public function of tensors has a row in `FUNCTIONS` with inputs to try it on.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import tikhon.math
from tikhon.blocks.structure.neural_ode import NeuralODE
from tikhon.core.catalogue import catalogue, methods
from tikhon.core.method import Method
from tikhon.core.parameters import Snapshot
from tikhon.core.recipe import Recipe
from tikhon.core.strength import linear
from tikhon.math.power_law import PowerLaw
from tikhon.math.runge_kutta import TABLEAUS
from tikhon.math.sinkhorn import Transport
from tikhon.studies.features.pretraining_advantage import FactorModel

pytree.register_pytree_node(
    Transport, lambda one: (list(vars(one).values()), None), lambda values, _: Transport(*values)
)

LAWS = {
    "neutral": "with its neutral arguments a method is plain training, to the bit",
    "resume": "saving and loading in a new process continues to the bit",
    "accumulation": "k micro-batches equal one batch k times as large",
    "export": "the exported model is plain torch with the trained model's outputs",
    "precision": "pure functions: gradients, float32, bfloat16, torch.func",
    "mixed precision": "under autocast it trains finitely with state as wide as ever, and a skipped step moves nothing",
    "permutation": "permuting the batch permutes per-sample results",
    "untouched": "the caller's tensors stay as they were",
    "reproducible": "the same seed gives the same weights, whatever the global generators do",
    "pairs": "two methods are refused together or do not depend on the order of their listing",
    "compile": "model and pure functions compile without a graph break",
    "shards": "with sharded parameters (FSDP2) two processes train what they do without, or attach refuses the method",
    "errors": "wrong input is refused before anything is changed",
}
"""The laws by the names that a method's `exempt` may use."""

METHODS = sorted(methods())


@dataclass(frozen=True)
class Row:
    """arguments: what the laws make the method with, strong enough to act within three epochs of two steps;
    neutral: its neutral arguments, where `card.neutral` is not written as arguments; begin: what the caller does once
    the recipe is attached, where that is more than nothing; base, output, target: of a method that does not classify,
    the base loss, what the network's four scores are read as, and what is made of the labels (in float); network: what
    is put into the network, in place, of a method that acts on layers of a kind of their own."""

    arguments: Mapping[str, Any] | None = None
    neutral: Mapping[str, Any] | None = None
    begin: Callable[[Recipe], None] = lambda recipe: None
    base: Callable[..., Tensor] = F.cross_entropy
    output: Callable[[Tensor], Tensor] | None = None
    target: Callable[[Tensor], Tensor] = lambda labels: labels
    network: Callable[[Any], None] = lambda network: None


CLASSIFICATION = Row()


def halved(prediction: Tensor | None) -> tuple[Tensor, Tensor]:
    """Another estimator: half of the prediction, for every other sample."""
    values = torch.linspace(-1.0, 1.0, 128).reshape(32, 4) if prediction is None else 0.5 * prediction
    return values, torch.arange(32) % 2 == 0


def shifts(size: int, by: int) -> Tensor:
    """The cyclic group of shifts by multiples of `by`, (size / by, size, size)."""
    eye = torch.eye(size)
    return torch.stack([eye.roll(by * k, 0) for k in range(size // by)])


class Turning(nn.Module):
    """A field for neural ODEs that depends on time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 12)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(2.0 * self.inner(y)) * (1.0 + t[:, None])


class Teacher(nn.Module):
    """Four scores of an image, in the type of the image; nothing to be trained."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 3.0 * inputs.flatten(1) @ torch.arange(144.0).sin().reshape(36, 4).to(inputs)


def with_neural_ode(network: Any) -> None:
    network.hidden = nn.Sequential(network.hidden, NeuralODE(Turning(), rtol=1e-3, atol=1e-3))


def with_dropout(network: Any) -> None:
    network.dropout.p = 0.5


def _task(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Sixteen images of four classes, in the type of the recipe's model."""
    images = torch.arange(576.0).sin().reshape(16, 1, 6, 6)
    return images.to(next(recipe._run.model.parameters()).dtype), torch.arange(16) % 4


def _learned(recipe: Recipe) -> None:
    """A task has ended, with its data where the recipe reads labels."""
    images, labels = _task(recipe)
    recipe.end_task([images if recipe.criterion.kind == "output" else (images, labels)])


def _important(recipe: Recipe) -> None:
    """A task has ended to which every weight mattered alike."""
    _learned(recipe)
    importance = recipe.methods["si"].importance
    assert isinstance(importance, Snapshot)
    importance.take({name: torch.ones_like(one) for name, one in importance.tensors.items()})


def _half_closed(recipe: Recipe) -> None:
    """Every other gate is shut for good."""
    gates = dict(recipe._run.model.named_parameters())["head.parametrizations.weight.0.log_alpha"]
    with torch.no_grad():
        gates[::2] = -9.0


_UNLABELLED = (torch.arange(24.0 * 36) * 1.7).sin().reshape(24, 1, 6, 6)

ROWS: Mapping[str, Row] = {
    "adversarial_training": Row(arguments={"radius": 0.1, "steps": 2}),
    "awp": Row(arguments={"gamma": 0.05}),
    "barlow_twins": Row(
        arguments={"redundancy": 0.1},
        base=F.mse_loss,
        target=lambda labels: torch.arange(16.0).sin().reshape(4, 4)[labels],
    ),
    "clip_grad_norm": Row(arguments={"max_norm": 0.1}),
    "clip_grad_value": Row(arguments={"max_value": 0.01}),
    "co_teaching": Row(arguments={"forget_rate": 0.4, "gradual": 1}),
    "coherent_splats": Row(arguments={"strength": 0.1, "levels": 1, "width": 4, "where": "first.weight"}),
    "contractive": Row(
        arguments={"strength": 1.0},
        base=F.mse_loss,
        output=lambda scores: scores.repeat(1, 9).reshape(-1, 1, 6, 6),
        target=lambda labels: torch.linspace(-1.0, 1.0, 4)[labels].reshape(-1, 1, 1, 1).expand(-1, 1, 6, 6),
    ),
    "coral": Row(arguments={"domains": torch.arange(32) % 3, "strength": 1.0, "means": True}),
    "cs_ib": Row(base=F.mse_loss, target=lambda labels: torch.arange(16.0).sin().reshape(4, 4)[labels]),
    "cutout": Row(arguments={"side": 0.2}),
    "dann": Row(arguments={"domains": torch.arange(32) % 3, "strength": 1.0, "width": 8}),
    "dhspg": Row(arguments={"strength": 5.0}),
    "dropblock": Row(arguments={"at": "second_norm", "block_size": 2, "p": 0.3}),
    "eata": Row(
        arguments={"margin": 0.999, "similarity": 0.999, "where": "all"},
        base=F.mse_loss,
        target=lambda labels: torch.arange(16.0).sin().reshape(4, 4)[labels],
    ),
    "ema": Row(arguments={"decay": 0.5}, neutral={}),
    "ewc": Row(arguments={"strength": 50.0}, begin=_learned),
    "f_dpo": Row(
        arguments={"divergence": "js"},
        base=F.mse_loss,
        output=lambda scores: scores[:, :2],
        target=lambda labels: torch.arange(8.0).sin().reshape(4, 2)[labels],
    ),
    "fishr": Row(arguments={"domains": torch.arange(32) % 3, "strength": 1.0}),
    "fix_match": Row(arguments={"unlabelled": _UNLABELLED, "threshold": 0.3, "ratio": 2}),
    "flex_dpo": Row(
        arguments={"sft": 0.1},
        base=F.mse_loss,
        output=lambda scores: scores[:, :2],
        target=lambda labels: torch.arange(8.0).sin().reshape(4, 2)[labels],
    ),
    "group_dro": Row(arguments={"domains": torch.arange(32) % 3, "eta": 1.0, "adjustment": 0.5}),
    "hessian_align": Row(arguments={"domains": torch.arange(32) % 3, "alpha": 0.1, "beta": 0.1}),
    "ibp": Row(arguments={"eps": linear(0.02, 0.1), "strength": 0.5}),
    "intertwined": Row(
        arguments={"matcher": halved, "every": 1, "strength": 0.5},
        base=F.mse_loss,
        target=lambda labels: torch.arange(16.0).sin().reshape(4, 4)[labels],
    ),
    "irm": Row(arguments={"domains": torch.arange(32) % 3, "strength": 0.1}),
    "kd": Row(arguments={"teacher": Teacher()}),
    "l0": Row(arguments={"strength": 0.05, "where": "hidden"}, begin=_half_closed),
    "l2_anchor": Row(begin=_learned),
    "l2": Row(arguments={"strength": 0.1}),
    "lwf": Row(begin=_learned),
    "magnitude_pruning": Row(arguments={"sparsity": 0.6, "over": (0.0, 0.5), "every": 1}),
    "manifold_mixup": Row(arguments={"at": ("first_norm", "hidden")}),
    "mapo": Row(
        base=F.mse_loss,
        output=lambda scores: scores.reshape(-1, 2, 2),
        target=lambda labels: torch.arange(16.0).sin().reshape(4, 2, 2)[labels],
    ),
    "mean_teacher": Row(arguments={"unlabelled": _UNLABELLED, "decay": 0.5, "ramp": 0.5}),
    "mixed_barlow_twins": Row(
        arguments={"redundancy": 0.1},
        base=F.mse_loss,
        target=lambda labels: torch.arange(16.0).sin().reshape(4, 4)[labels],
    ),
    "mask_tuning": Row(arguments={"freeze": False}),
    "mmd": Row(arguments={"domains": torch.arange(32) % 3}),
    "monge_gap": Row(
        base=F.mse_loss,
        output=lambda scores: scores.repeat(1, 9).reshape(-1, 1, 6, 6),
        target=lambda labels: torch.linspace(-1.0, 1.0, 4)[labels].reshape(-1, 1, 1, 1).expand(-1, 1, 6, 6),
    ),
    "nested_dropout": Row(arguments={"scale": 8.0}),
    "pissa": Row(arguments={"rank": 2, "freeze": False}),
    "policy_noise_mask": Row(arguments={"strength": 1.0, "grid": (3, 3)}),
    "quant_nas": Row(arguments={"price": 0.1, "entropy": 0.1}),
    "r_drop": Row(network=with_dropout),
    "repa": Row(
        arguments={
            "features": torch.linspace(-1.0, 1.0, 160).sin().reshape(32, 5),
            "at": "hidden",
            "size": 12,
            "width": 8,
        }
    ),
    "replay": Row(arguments={"size": 8, "strength": 0.5}, begin=_learned),
    "si": Row(arguments={"strength": 1.0}, begin=_important),
    "solver_reg": Row(
        base=F.mse_loss,
        target=lambda labels: torch.arange(16.0).sin().reshape(4, 4)[labels],
        network=with_neural_ode,
    ),
    "soft_equivariance": Row(
        arguments={
            "symmetries": {
                "flip": (shifts(24, 12), shifts(4, 2)),
                "turn": (shifts(24, 8), torch.ones(3, 1, 1) * torch.eye(4)),
            },
            "warmup": 2,
        }
    ),
    "repulsion": Row(
        arguments={
            "adapted": {"hidden.weight": torch.linspace(-0.2, 0.2, 288).reshape(12, 24)},
            "where": "hidden.weight",
        }
    ),
    "sorsa": Row(arguments={"rank": 2, "freeze": False}),
    "spatial_dropout": Row(arguments={"at": "second_norm", "p": 0.3}),
    "stochastic_depth": Row(arguments={"at": ("first_norm", "second_norm")}),
    "swa": Row(arguments={"start": 0.0}, neutral={}),
    "trades": Row(arguments={"beta": 1.0, "radius": 0.1, "steps": 2}),
    "vat": Row(arguments={"unlabelled": torch.arange(180.0).sin().reshape(5, 1, 6, 6), "count": 4}),
    "vib": Row(arguments={"strength": 0.1}),
    "vicreg": Row(
        arguments={"invariance": 1.0, "variance": 1.0, "covariance": 0.1},
        base=F.mse_loss,
        target=lambda labels: torch.arange(16.0).sin().reshape(4, 4)[labels],
    ),
    "virtual_outlier": Row(
        arguments={
            "strength": 1.0,
            "inner": -3.0,
            "outer": -1.0,
            "neighbours": 3,
            "edge": 4,
            "offsets": 8,
            "per_class": 4,
        },
        begin=lambda recipe: recipe.end_task([_task(recipe)]),
    ),
    "vrex": Row(arguments={"domains": torch.arange(32) % 3}),
    "weight_compander": Row(arguments={"learned": True}),
    "wgsef": Row(arguments={"strength": 3.0, "keep": 0.4}),
}


def problem_of(*names: str) -> Row:
    """What these methods are tried on together: a classification, unless one of them asks for something else."""
    rows = [ROWS.get(name, CLASSIFICATION) for name in names]
    asked = [row for row in rows if row.base is not CLASSIFICATION.base]
    asked += [row for row in rows if row.network is not CLASSIFICATION.network]
    return asked[0] if asked else CLASSIFICATION


CLASSIFYING = [name for name in METHODS if problem_of(name).base is CLASSIFICATION.base]


def written(arguments: str) -> dict[str, Any]:
    """The arguments in a card's `strength=0.1, where="head"`."""
    call = ast.parse(f"f({arguments})", mode="eval").body
    assert isinstance(call, ast.Call)
    if call.args:
        raise ValueError("positional arguments")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def arguments_of(name: str) -> dict[str, Any]:
    """The arguments that the laws make a method with."""
    given = ROWS.get(name, Row()).arguments
    return dict(given) if given is not None else written(methods()[name].load().card.example)


def make(name: str) -> Method:
    """The method as the laws try it."""
    return methods()[name].load()(**arguments_of(name))


def make_neutral(name: str) -> Method:
    """The method with its neutral arguments, the others as the laws try it."""
    kind = methods()[name].load()
    neutral = ROWS.get(name, Row()).neutral
    if neutral is None:
        try:
            neutral = written(kind.card.neutral)
        except (SyntaxError, ValueError):
            raise AssertionError(
                f"{name}: card.neutral is not written as arguments ({kind.card.neutral!r}). Write them as in "
                f"'strength=0', or give the method a Row(neutral={{...}}) in tests/laws/rows.py."
            ) from None
    return kind(**(arguments_of(name) | dict(neutral)))


class Draw:
    """Tensors in float64 to try functions on, from one generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def positive(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64) + 0.5

    def probabilities(self, *shape: int) -> Tensor:
        return torch.softmax(self.normal(*shape), dim=-1)

    def permutation(self, size: int) -> Tensor:
        return torch.randperm(size, generator=self.generator)

    def labels(self, size: int, classes: int) -> Tensor:
        return torch.randint(classes, (size,), generator=self.generator)


@dataclass(frozen=True)
class Function:
    """Inputs to try a public function of tensors on, floating-point ones in float64.

    differentiable: whether `gradcheck` holds at these inputs; in_place: it writes into its first argument, which is
    then its result; bfloat16: whether it takes bfloat16; vmap: whether `torch.func.vmap` can map it: it has no rule for
    torch's fused operations on lists of parameters (whose product with one tensor has no working gradient either), for
    fused attention, nor for a batch norm that keeps statistics; compiles: whether it compiles as a whole, which what
    looks at values before it begins, or iterates until it is done, does not; smallest: the size of an axis from which
    on it says something, such as two classes; finite: whether all that it gives is finite, rather than infinite or
    NaN where its documentation says so; valid: whether arguments are such as its documentation allows, where other
    draws may not be.
    """

    arguments: Callable[[Draw], tuple[Any, ...]]
    differentiable: bool = True
    smallest: int = 1
    finite: bool = True
    valid: Callable[..., bool] = lambda *_: True
    in_place: bool = False
    bfloat16: bool = True
    vmap: bool = True
    compiles: bool = True


def pair(d: Draw) -> list[Tensor]:
    """What methods get from a model: parameters of several shapes."""
    return [d.normal(3), d.normal(2, 2)]


def shares(*masses: Tensor) -> list[Tensor]:
    """Of sum 1, none of them 0."""
    return [one / one.sum() for one in masses]


def counts(successes: Tensor, trials: Tensor) -> bool:
    """Whether no number of successes is negative or above that of trials."""
    return bool(((successes >= 0.0) & (successes <= trials)).all())


def squared_error(weights: Mapping[str, Tensor], inputs: Tensor, value: Tensor) -> Tensor:
    return (weights["w"] @ inputs - value).square()


def turning(t: Tensor, y: Tensor) -> Tensor:
    return torch.sin(2.0 * y) + t[:, None]


class Scores(nn.Module):
    """A linear model in eval mode that computes in the type of its input; a copy of it is itself."""

    def __init__(self, d: Draw) -> None:
        super().__init__()
        self.weight = nn.Parameter(d.normal(4, 3))
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.to(inputs.dtype)

    def __deepcopy__(self, memo: object) -> Scores:
        return self


def square_sum_slope(vector: Tensor) -> Tensor:
    """A symmetric operator."""
    return torch.arange(1, len(vector) + 1).to(vector.dtype) * vector


def square_sums(values: Tensor) -> Tensor:
    """A loss of every row."""
    return (values * torch.arange(1, values.shape[1] + 1)).square().sum(1)


def square_sum(values: Tensor) -> Tensor:
    """A strongly convex function."""
    return (values * torch.arange(1, len(values) + 1)).square().sum()


def coupled(theta: Tensor, x: Tensor) -> Tensor:
    """A lower problem, of convexity 1 at least."""
    return 0.5 * x.square().sum() + (theta.exp() * (x - theta).square()).sum()


FUNCTIONS: Mapping[str, Function] = {
    "activation_hash.activation_hash": Function(
        lambda d: (Scores(d), d.normal(12, 4), d.labels(12, 3), d.normal(5, 4), d.labels(5, 3), [""]),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "activation_hash.neural_codes": Function(
        lambda d: (Scores(d), d.normal(12, 4), [""]), differentiable=False, vmap=False, compiles=False
    ),
    "activation_hash.redundancy": Function(
        lambda d: (d.normal(12, 3) > 0,), differentiable=False, vmap=False, compiles=False
    ),
    "adamixup.intrusion_losses": Function(lambda d: (d.normal(5), d.normal(5))),
    "adamixup.mixed_by_row": Function(lambda d: (d.normal(4, 3), d.permutation(4), d.positive(4) - 0.5)),
    "adamixup.policy_share": Function(lambda d: (d.normal(4, 3), d.positive(4) - 0.5)),
    "adversarial_strength.adversarial_strength": Function(
        lambda d: (d.normal(6, 3), torch.arange(6) % 2, d.normal(3), d.normal(1)[0]),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "adversarial_strength.deviation_cosine": Function(lambda d: (d.normal(4), d.normal(4))),
    "adversarial_strength.hyperplane_distances": Function(
        lambda d: (d.normal(5, 3), d.normal(3), d.normal(1)[0]), valid=lambda _, normal, __: bool(normal.any())
    ),
    "agc.adaptively_clipped": Function(lambda d: (pair(d), pair(d), 0.1, 1e-3), vmap=False),
    "agc.unitwise_norms": Function(lambda d: (pair(d),), vmap=False),
    "ascent.ascent_offsets": Function(lambda d: (pair(d), 0.05), differentiable=False, vmap=False, compiles=False),
    "ascent.relative_ascent_offsets": Function(lambda d: (pair(d), pair(d), 0.05), differentiable=False, vmap=False),
    "ascent.scaled_ascent_offsets": Function(
        lambda d: ([one.abs() for one in pair(d)], pair(d), 0.05), differentiable=False, vmap=False, compiles=False
    ),
    "attacks.dual_norm": Function(lambda d: (d.normal(4, 3), "2")),
    "attacks.projected_ascent": Function(
        lambda d: (square_sums, d.normal(4, 3), 0.1 * d.normal(4, 3), 0.2, 0.1, 3, "2"),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "attacks.rows_norm": Function(lambda d: (d.normal(4, 3),)),
    "attacks.steepest": Function(lambda d: (d.normal(4, 3), "2")),
    "attacks.within": Function(lambda d: (d.normal(4, 3), 0.5, "2")),
    "balancing.balancing_step": Function(
        lambda d: (
            torch.tensor([0, 2, 3, 7]),
            0.5 * d.positive(4),
            (2.0 * d.positive(4), 2.0 * d.positive(3)),
            (d.normal(4), d.normal(3)),
            1e-9,
        ),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "best_response.responding_squared_norms": Function(
        lambda d: (d.normal(3, 2, 2), d.normal(3, 2, 2), d.normal(4, 3))
    ),
    "best_response.responding_weight": Function(lambda d: (d.normal(3, 2, 2), d.normal(3, 2, 2), d.normal(3))),
    "bilevel.hypergradient": Function(
        lambda d: (coupled, square_sum, d.normal(3), d.normal(3), 1.0, 0.1, 1e-6),
        differentiable=False,
        bfloat16=False,
        vmap=False,
        compiles=False,
    ),
    "bilevel.nested_problem": Function(
        lambda d: (coupled, square_sum, 1.0, d.normal(3), d.normal(3)),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "bins.binned_means": Function(
        lambda d: (d.probabilities(2, 6), d.normal(2, 6), 3, True), vmap=False, finite=False
    ),  # an empty bin has no mean
    "boxes.erased": Function(lambda d: (d.normal(2, 3, 4, 5), d.labels(40, 2).reshape(2, 4, 5).bool(), "mean")),
    "boxes.erased_regions": Function(
        lambda d: (d.normal(2, 3, 4, 5), [(1, slice(None), slice(1, 3), slice(0, 4))], "mean")
    ),
    "boxes.inside_boxes": Function(lambda d: ((4, 5), 4.0 * d.positive(3, 2), d.positive(3, 2)), differentiable=False),
    "boxes.regions_inside": Function(
        lambda d: (4.0 * d.positive(3, 2), d.positive(3, 2)),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),  # gives numbers of Python, on purpose
    "class_relation_kd.transfer_weights": Function(
        lambda d: (d.normal(5, 4), 2, torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)),
        differentiable=False,
    ),
    "bang.interpolated": Function(lambda d: (pair(d), pair(d), 0.3), vmap=False),
    "co_teaching.small_loss": Function(lambda d: (d.normal(8), 0.3), differentiable=False),
    "coherent_splats.flow_difference": Function(
        lambda d: (d.normal(4, 5, 3), d.normal(4, 5, 3), 0.3 * d.normal(4, 5, 2))
    ),
    "coherent_splats.masked_variation": Function(lambda d: (d.normal(2, 4, 5), d.labels(20, 2).reshape(4, 5))),
    "confidence_penalty.entropy": Function(lambda d: (d.probabilities(5, 3),)),
    "contractive.log_density_difference": Function(lambda d: (torch.tanh, d.normal(4, 2), d.normal(4, 2), 0.5)),
    "contractive.metropolis": Function(
        lambda d: (torch.tanh, d.normal(4, 2), d.normal(4, 2), 0.1 * d.positive(4), 0.5), differentiable=False
    ),
    "contractive.score": Function(lambda d: (torch.tanh, d.normal(4, 2), 0.5)),
    "copies.copied": Function(lambda d: (d.normal(4, 3),)),
    "copies.is_plain": Function(lambda d: (d.normal(4, 3),), differentiable=False, vmap=False, compiles=False),
    "coral.coral_distance": Function(lambda d: (d.normal(6, 3), F.one_hot(torch.arange(6) % 2).T.double(), True)),
    "coral.covariances": Function(lambda d: (d.normal(6, 3), F.one_hot(torch.arange(6) % 2).T.double())),
    "corrupted_grokking.inverse_participation_ratio": Function(lambda d: (d.normal(4, 7),), bfloat16=False),
    "corrupted_grokking.neuron_participation": Function(lambda d: (d.normal(4, 14), d.normal(7, 4)), bfloat16=False),
    "cs_ib.cs_conditional_divergence": Function(
        lambda d: (d.positive(4, 4), d.positive(4, 4), d.positive(4, 4), d.positive(4, 4))
    ),
    "cs_ib.cs_mutual_information": Function(lambda d: (d.positive(4, 4), d.positive(4, 4))),
    "cs_ib.gaussian_kernel": Function(lambda d: (d.normal(4, 3), d.normal(5, 3), 1.5)),
    "cs_ib.median_width": Function(lambda d: (d.normal(5, 3),), differentiable=False, bfloat16=False, vmap=False),
    "cutmix.cutmix": Function(lambda d: (d.normal(4, 2, 5, 5), d.permutation(4), (slice(1, 4), slice(0, 2)))),
    "dann.reversed_gradient": Function(lambda d: (d.normal(4, 3), 0.5), differentiable=False),
    "data_diet.hardest": Function(lambda d: (d.normal(8), 0.5, 0.25), differentiable=False),
    "decorrelation.barlow_twins": Function(lambda d: (d.normal(5, 3), d.normal(5, 3))),
    "decorrelation.standardised": Function(lambda d: (d.normal(5, 3), 1)),
    "dependence.distance_covariance": Function(lambda d: (d.normal(6, 3), d.normal(6, 2))),
    "difficulty.el1n": Function(lambda d: (d.probabilities(5, 3), d.labels(5, 3))),
    "difficulty.el2n": Function(lambda d: (d.probabilities(5, 3), d.labels(5, 3))),
    "difficulty.grand": Function(lambda d: (Scores(d), d.normal(5, 4), d.labels(5, 3))),
    "difficulty.last_layer_gradient_norms": Function(lambda d: (d.probabilities(5, 3), d.labels(5, 3), d.normal(5, 4))),
    "difficulty.max_margin": Function(lambda d: (d.probabilities(5, 3), d.labels(5, 3)), smallest=2),
    "difficulty.sum_margin": Function(lambda d: (d.probabilities(5, 3), d.labels(5, 3))),
    "distances.snr_distances": Function(lambda d: (d.normal(4, 3), d.normal(5, 3))),
    "distillation.distillation_losses": Function(lambda d: (d.normal(5, 3), d.normal(5, 3), 2.0)),
    "distillation.softmax_divergence": Function(lambda d: (d.normal(5, 3), d.normal(5, 3))),
    "domains.dispersion": Function(lambda d: (d.normal(4, 3), torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64))),
    "domains.domain_means": Function(lambda d: (d.normal(5, 3), F.one_hot(torch.arange(5) % 2).T.double())),
    "domains.mean_over": Function(lambda d: (d.normal(3, 4), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))),
    "domains.mismatch": Function(lambda d: (d.normal(3, 4), d.normal(4), torch.ones(3, dtype=torch.float64))),
    "dr_tune.calibrated": Function(
        lambda d: (d.normal(9, 3), d.normal(9, 3), torch.arange(9) % 2, d.normal(2, 3), d.positive(1)),
        differentiable=False,
    ),
    "dr_tune.rotated": Function(lambda d: (d.normal(9, 3), d.normal(9, 3)), differentiable=False),
    "dhspg.dual_strengths": Function(lambda d: (d.positive(5), d.normal(5), d.positive(5), 0.1, 1.1, 10.0)),
    "dhspg.redundancy": Function(lambda d: (d.positive(5), d.normal(5), d.positive(5))),
    "dhspg.redundant_units": Function(lambda d: (d.normal(6), (4, 2), 0.5), differentiable=False),
    "dropblock.in_blocks": Function(lambda d: (d.labels(12, 2).reshape(2, 2, 3).double(), (2,)), differentiable=False),
    "dropblock.seed_rate": Function(lambda d: ((8, 6), (3, 3), d.probabilities(1)[0])),
    "eata.moved_mean": Function(
        lambda d: (d.probabilities(3), d.probabilities(5, 3), torch.tensor([True, False, True, True, False]), 0.9)
    ),
    "eata.reliability": Function(lambda d: (d.positive(5), 0.5)),
    "eata.reliable_and_new": Function(
        lambda d: (d.probabilities(5, 3), d.probabilities(3), d.positive(5), 1.0, 0.9), differentiable=False
    ),
    "elr.clamped": Function(lambda d: (d.probabilities(5, 3),)),
    "elr.elr_penalty": Function(lambda d: (d.probabilities(5, 3), d.probabilities(5, 3))),
    "elr.updated_memory": Function(lambda d: (d.probabilities(5, 3), d.probabilities(5, 3), 0.7)),
    "ema.moved_average": Function(lambda d: (pair(d), pair(d), 0.9), in_place=True),
    "entropy.softmax_entropy": Function(lambda d: (d.normal(5, 3),)),
    "ewc.centre_of_both": Function(
        lambda d: (pair(d), [d.positive(3), d.positive(2, 2)], pair(d), [d.positive(3), d.positive(2, 2)])
    ),
    "exponential.fitted_exponential": Function(
        lambda d: (torch.arange(8.0, dtype=torch.float64), d.positive(8).sort(descending=True).values),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "exponential.forecast": Function(
        lambda d: (torch.arange(16.0, dtype=torch.float64), d.positive(16).sort(descending=True).values, 20.0, 1, 2),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "f_dpo.f_dpo_losses": Function(lambda d: (d.normal(5, 2), 0.5, "js")),
    "f_dpo.implicit_reward": Function(lambda d: (d.normal(5, 2), "alpha", 0.3)),
    "fishr.gradient_variances": Function(
        lambda d: (d.normal(6, 3), d.normal(6, 4), F.one_hot(torch.arange(6) % 2).T.double())
    ),
    "fix_match.pseudo_labels": Function(lambda d: (d.probabilities(5, 3), 0.5), differentiable=False),
    "flex_dpo.flex_dpo_losses": Function(lambda d: (d.normal(5, 2), 0.5, 0.2)),
    "fisher.anchor_penalty": Function(lambda d: (pair(d), pair(d), pair(d)), vmap=False),
    "fisher.anchor_pull": Function(lambda d: (pair(d), pair(d), pair(d)), vmap=False),
    "fisher.squared_gradients": Function(
        lambda d: (squared_error, {"w": d.normal(3)}, d.normal(4, 3), d.normal(4)),
    ),
    "focal_loss.focal_losses": Function(lambda d: (d.probabilities(5, 3).log(), 1.5)),
    "gaussian_dropout.gaussian_dropped": Function(lambda d: (d.normal(4, 3), 0.0), vmap=False),
    "gce.gce_losses": Function(lambda d: (d.probabilities(5, 3).log(), 0.7, 0.1)),
    "ghost_bn.normalised_chunks": Function(
        lambda d: (d.normal(6, 2, 3), 2, d.positive(2), d.normal(2), 1e-5), vmap=False
    ),
    "gradient_centralisation.centralised": Function(lambda d: ([d.normal(3, 2), d.normal(2, 3, 2)],), vmap=False),
    "group_dro.raised_weights": Function(lambda d: (d.normal(3), d.positive(3), 0.5)),
    "groups.checked_symmetry": Function(
        lambda d: ("turn", shifts(3, 1).double(), shifts(6, 2).double()),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "groups.copies": Function(lambda d: (d.normal(3, 2, 2), 2)),
    "groups.equivariant_part": Function(lambda d: (d.normal(6, 3), shifts(6, 2).double(), shifts(3, 1).double())),
    "groups.generated": Function(
        lambda d: (shifts(4, 1)[1:2].double(),), differentiable=False, vmap=False, compiles=False
    ),
    "groups.regular": Function(
        lambda d: (shifts(4, 2).double(), shifts(4, 1).double()), differentiable=False, vmap=False, compiles=False
    ),
    "hyres.hyres": Function(
        lambda d: (d.normal(8, 8, 3),), differentiable=False, bfloat16=False, vmap=False, compiles=False
    ),
    "hyres.noise_deviation": Function(lambda d: (d.normal(9, 3),), bfloat16=False, smallest=4),
    "hyres.soft_threshold": Function(lambda d: (d.normal(4, 3), 0.3)),
    "hyres.sure_threshold": Function(lambda d: (d.normal(8, 3),), differentiable=False),
    "infomec.compactness": Function(lambda d: (d.positive(3, 4),), smallest=2),
    "infomec.infomec": Function(
        lambda d: (torch.arange(12).reshape(6, 2) % 3, d.normal(6, 3).round(), True),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "infomec.modularity": Function(lambda d: (d.positive(3, 4),), smallest=2),
    "infomec.mutual_information": Function(
        lambda d: (d.labels(12, 3).reshape(6, 2), d.labels(18, 2).reshape(6, 3), 3, 2),
        differentiable=False,
        vmap=False,
    ),
    "ibp.excess_width": Function(lambda d: (d.positive(1)[0], [*d.positive(3)])),
    "ibp.relu_imbalance": Function(lambda d: (d.normal(3, 4) - 0.2, d.normal(3, 4) + 0.2)),
    "ibp_tightness.certified_accuracy": Function(
        lambda d: (Scores(d), d.normal(5, 4), d.labels(5, 3), 0.1), differentiable=False, vmap=False, compiles=False
    ),
    "ibp_tightness.ibp_tightness": Function(
        lambda d: (Scores(d), d.normal(5, 4)), differentiable=False, bfloat16=False, vmap=False, compiles=False
    ),
    "intervals.box_around": Function(lambda d: (d.positive(4, 3), 0.7, (0.0, 1.0))),
    "intervals.linear_margins": Function(
        lambda d: (d.normal(4, 3), d.positive(4, 3), d.normal(5, 3), d.normal(5), d.probabilities(4, 5))
    ),
    "intervals.margins": Function(lambda d: (d.normal(4, 3), d.positive(4, 3), d.probabilities(4, 3))),
    "intervals.monotone_interval": Function(lambda d: (torch.tanh, d.normal(4, 3), d.positive(4, 3))),
    "intervals.normalised_interval": Function(
        lambda d: (d.normal(4, 3), d.positive(4, 3), d.normal(3), d.positive(3), d.normal(3), d.normal(3))
    ),
    "intervals.weighted_interval": Function(
        lambda d: (F.linear, d.normal(4, 3), d.positive(4, 3), d.normal(5, 3), d.normal(5))
    ),
    "irm.invariance_penalty": Function(
        lambda d: (d.normal(6), F.one_hot(torch.arange(6) % 2).T.double(), d.positive(6))
    ),
    "iterations.conjugate_gradients": Function(
        lambda d: (torch.func.grad(square_sum), d.normal(3), d.normal(3), 1e-6, 20),
        differentiable=False,
        bfloat16=False,
        vmap=False,
        compiles=False,
    ),
    "iterations.minimised": Function(
        lambda d: (square_sum, d.normal(3), 2.0, 1e-6),
        differentiable=False,
        bfloat16=False,
        vmap=False,
        compiles=False,
    ),
    "iterations.spectral_norm": Function(
        lambda d: (torch.func.grad(square_sum), d.normal(3), 60), differentiable=False, vmap=False, compiles=False
    ),
    "kernels.fourier_features": Function(lambda d: (d.normal(4, 3), d.normal(3, 5), d.positive(5))),
    "kernels.gaussian_mixture": Function(lambda d: (d.positive(4, 5), d.positive(2))),
    "kernels.kernel_ridge": Function(
        lambda d: (torch.diag(d.positive(4)) + 0.1 * d.normal(4, 4), d.normal(4, 3), d.normal(4, 2), 0.5),
        bfloat16=False,
    ),
    "intertwined.guidance": Function(lambda d: (d.normal(4, 2), d.normal(4, 2), d.positive(4))),
    "kernels.squared_distances": Function(lambda d: (d.normal(4, 3), d.normal(5, 3))),
    "l0.chance_open": Function(lambda d: (d.normal(5),)),
    "l0.hard_concrete": Function(
        lambda d: (0.3 * d.normal(5), 0.3 + 0.4 * (d.positive(5) - 0.5)),
        valid=lambda _, uniform: bool(((uniform > 0.0) & (uniform < 1.0)).all()),
    ),
    "l0.mean_gate": Function(lambda d: (d.normal(5),)),
    "l2_anchor.anchor_penalty": Function(lambda d: (pair(d), pair(d), pair(d)), vmap=False),
    "l2_anchor.squared_gradients": Function(
        lambda d: (squared_error, {"w": d.normal(3)}, d.normal(4, 3), d.normal(4)),
    ),
    "l2.half_squared_norm": Function(lambda d: (pair(d),), vmap=False),
    "label_smoothing.smoothed": Function(lambda d: (d.probabilities(5, 3), 0.1)),
    "lanczos.lanczos": Function(
        lambda d: (square_sum_slope, d.normal(5), 3), differentiable=False, vmap=False, compiles=False
    ),
    "latent_quant.nearest": Function(lambda d: (d.normal(5, 3), d.normal(3, 4)), differentiable=False),
    "latent_quant.quantization_errors": Function(lambda d: (d.normal(5, 3), d.normal(3, 4)), differentiable=False),
    "latent_quant.quantized": Function(lambda d: (d.normal(5, 3), d.normal(3, 4))),
    "latent_quant.straight_through": Function(lambda d: (d.normal(5, 3), d.normal(3, 4)), differentiable=False),
    "loki.frechet_predict": Function(lambda d: (d.probabilities(5, 3), d.positive(3, 4)), differentiable=False),
    "loki.frechet_scores": Function(lambda d: (d.probabilities(5, 3), d.positive(3, 4))),
    "magnitude_pruning.largest_kept": Function(lambda d: (pair(d), 0.5), differentiable=False),
    "mapo.likelihood_score": Function(lambda d: (d.positive(5, 2), 0.5)),
    "mapo.mapo_losses": Function(lambda d: (d.positive(5, 2), 0.1, 0.5, 10.0)),
    "matching.clustering_accuracy": Function(
        lambda d: (d.labels(12, 3), d.labels(12, 3)), differentiable=False, vmap=False, compiles=False
    ),
    "mean_teacher.disagreement": Function(lambda d: (d.probabilities(5, 3), d.probabilities(5, 3))),
    "mixed_barlow_twins.mixing_gap": Function(
        lambda d: (d.normal(5, 3), d.normal(5, 3), d.normal(5, 3), d.permutation(5), 0.3)
    ),
    "mask_tuning.agreement": Function(lambda d: (d.normal(4, 3), d.normal(4, 3))),
    "mask_tuning.binary_mask": Function(lambda d: (d.normal(4, 3), 0.1), differentiable=False),
    "mixup.mixup": Function(lambda d: (d.normal(4, 3), d.permutation(4), 0.3)),
    "mmd.maximum_mean_discrepancy": Function(lambda d: (d.positive(5, 5), F.one_hot(torch.arange(5) % 2).T.double())),
    "monge_gap.monge_gap": Function(lambda d: (d.normal(5, 2), d.normal(5, 2), 1.0)),
    "multi_sample_dropout.dropped": Function(lambda d: (d.normal(4, 3), 2, 0.0)),
    "neighbours.nearest": Function(lambda d: (d.normal(5, 3), d.normal(6, 3)), differentiable=False),
    "nested_dropout.accuracy_by_kept": Function(
        lambda d: (d.normal(6, 4), d.labels(6, 3), d.normal(3, 4), d.normal(3)), differentiable=False
    ),
    "nested_dropout.keep_first": Function(lambda d: (d.normal(4, 6), torch.tensor(2))),
    "neighbours.kth_squared_distance": Function(lambda d: (d.normal(4, 3), d.normal(5, 3), 2)),
    "neighbours.loneliest": Function(lambda d: (d.normal(4, 3), d.normal(5, 3), 2, 3), differentiable=False),
    "neural_collapse.alignment": Function(lambda d: (d.normal(3, 4), d.normal(3, 4)), smallest=2),
    "neural_collapse.collapse": Function(
        lambda d: (d.normal(9, 4), torch.arange(3).repeat(3), d.normal(3, 4)),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "neural_collapse.collapsed_features": Function(
        lambda d: (d.normal(6, 3), torch.arange(3).repeat(2), 3, 0.1, 0.1, 3), bfloat16=False, vmap=False
    ),
    "neural_collapse.means_and_scatter": Function(lambda d: (d.normal(9, 4), torch.arange(3).repeat(3), 3)),
    "neural_collapse.simplex_deviation": Function(lambda d: (d.normal(3, 4),), smallest=2),
    "neural_collapse.variability": Function(lambda d: (d.normal(9, 2), torch.arange(3).repeat(3), 3), vmap=False),
    "norms.absolute_norm": Function(lambda d: (pair(d),), vmap=False),
    "norms.half_squared_norm": Function(lambda d: (pair(d),), vmap=False),
    "norms.sum_of_entries": Function(lambda d: (pair(d),), vmap=False),
    "one_epoch.steps_to_reach": Function(
        lambda d: (
            torch.logspace(0, 3, 5, dtype=torch.float64),
            4.0 - d.positive(5).cumsum(0) / 2.0,
            2.0 + d.positive(2),
        ),
        finite=False,
    ),
    "orth_conv.conv_orth_dist": Function(lambda d: (d.normal(3, 2, 3, 3), 1)),
    "orth_conv.deconv_orth_dist": Function(lambda d: (d.normal(3, 2, 3, 3), 2, 1)),
    "orth_conv.orth_dist": Function(lambda d: (d.normal(3, 4),)),
    "orth_conv.orthogonality": Function(lambda d: (d.normal(4, 2, 3, 3), 2)),
    "outliers.quadratic_spline": Function(lambda d: (torch.arange(9.0, dtype=torch.float64), d.normal(9))),
    "outliers.without_outliers": Function(
        lambda d: (torch.arange(16.0, dtype=torch.float64), d.normal(16), 1, 2),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "perp_grad.orthogonal_to": Function(lambda d: (pair(d), pair(d)), vmap=False),
    "perp_grad.with_norms_of": Function(lambda d: (pair(d), pair(d)), vmap=False),
    "quantization.step_size": Function(lambda d: (d.normal(4, 3), 4), differentiable=False),
    "quantization.with_quantization_noise": Function(
        lambda d: (d.normal(4, 3), d.normal(2, 4, 3), d.probabilities(2), d.positive(2) + 1.0), differentiable=False
    ),
    "r_drop.symmetric_divergence": Function(lambda d: (d.probabilities(5, 3), d.probabilities(5, 3))),
    "random.dropped": Function(lambda d: (d.normal(4, 3), 0.0)),
    "random_erasing.rectangles": Function(
        lambda d: ((8, 8), d.positive(3, 2, 4) - 0.5, 0.02, 0.4, 0.3), differentiable=False
    ),
    "replay.kept_samples": Function(lambda d: (d.normal(6), d.labels(6, 2), 3), differentiable=False),
    "scaling_crossover.crossover": Function(
        lambda d: (
            torch.logspace(0, 3, 8, dtype=torch.float64),
            0.2 + 3.0 * torch.logspace(0, -1.5, 8, dtype=torch.float64) + 0.01 * d.normal(8),
            0.5 + 2.0 * torch.logspace(0, -1.5, 8, dtype=torch.float64) + 0.01 * d.normal(8),
        ),
        finite=False,
        differentiable=False,
        bfloat16=False,
        vmap=False,
        compiles=False,
    ),
    "sce.reverse_cross_entropy": Function(lambda d: (d.probabilities(5, 3).log(), -4.0)),
    "sgd_stability.path_norm": Function(
        lambda d: (Scores(d), d.normal(5, 4)), differentiable=False, vmap=False, compiles=False
    ),
    "sgd_stability.sgd_stability": Function(
        lambda d: (Scores(d), F.cross_entropy, [(d.normal(5, 4), d.labels(5, 3))], 0.1),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "singular.leading_singular": Function(
        lambda d: (torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64)) + 0.1 * d.normal(4, 4), 2),
        differentiable=False,
        vmap=False,
    ),
    "scalar_distances.scalar_covariance": Function(
        lambda d: (d.normal(70), d.normal(70), False), bfloat16=False, vmap=False
    ),
    "shares.capped_shares": Function(
        lambda d: (d.positive(3, 5), d.positive(3, 1), 2.0 * torch.ones(3, 1, dtype=torch.float64), d.positive(3, 5)),
        bfloat16=False,
    ),
    "pissa.difference_lora": Function(lambda d: (d.normal(2, 5), d.normal(4, 2), d.normal(2, 5), d.normal(4, 2))),
    "pissa.pissa_factors": Function(
        lambda d: (torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64)) + 0.1 * d.normal(4, 4), 2),
        differentiable=False,
        vmap=False,
    ),
    "power_law.fitted_power_law": Function(
        lambda d: (torch.logspace(0, 3, 8, dtype=torch.float64), d.positive(8).sort(descending=True).values),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "power_law.law_derivatives": Function(lambda d: (PowerLaw(*d.positive(3)), d.positive(5))),
    "power_law.power_law_covariance": Function(
        lambda d: (PowerLaw(*d.positive(3)), 4.0 * d.positive(6), d.positive(6)), bfloat16=False
    ),
    "policy_noise_mask.beta_log_density": Function(
        lambda d: (0.1 + 0.8 * d.probabilities(4, 3), d.positive(4, 3), d.positive(4, 3)),
        bfloat16=False,
    ),
    "policy_noise_mask.policy_losses": Function(lambda d: (d.normal(4), d.normal(4))),
    "policy_noise_mask.spread": Function(lambda d: (d.positive(2, 3, 3), (6, 7))),
    "precision.at_least_float32": Function(lambda d: (d.normal(4, 3),)),
    "precision.largest_magnitudes": Function(lambda d: (pair(d),), vmap=False),
    "preferences.sequence_log_probabilities": Function(
        lambda d: (d.normal(3, 4, 5), d.labels(12, 5).reshape(3, 4), d.labels(12, 2).reshape(3, 4).bool())
    ),
    "pretraining_advantage.factor_model": Function(
        lambda d: (torch.diag(torch.arange(1.0, 6.0, dtype=torch.float64)) + 0.1 * d.normal(5, 5), 2), bfloat16=False
    ),
    "pretraining_advantage.gradient_steps": Function(
        lambda d: (d.normal(6, 3), d.normal(6), 0.1), differentiable=False, bfloat16=False
    ),
    "pretraining_advantage.posterior_mean": Function(
        lambda d: (d.normal(4, 5), FactorModel(d.normal(5), d.normal(5, 2), d.positive(1)[0])), bfloat16=False
    ),
    "ps_kd.known": Function(lambda d: (d.probabilities(5, 3), d.probabilities(5, 3))),
    "ps_kd.softened": Function(lambda d: (d.probabilities(5, 3), d.probabilities(5, 3), 0.5)),
    "quantization.channel_scale": Function(lambda d: (d.normal(4, 3), 4), differentiable=False),
    "quantization.floor_to_unsigned": Function(lambda d: (10.0 * d.normal(4, 3), 4), differentiable=False),
    "quantization.round_to_signed": Function(lambda d: (10.0 * d.normal(4, 3), 4), differentiable=False),
    "refined_schedule.closed_form": Function(lambda d: (d.positive(6),), smallest=2),
    "refined_schedule.median_smoothed": Function(lambda d: (d.positive(9), 3)),
    "refined_schedule.numeric_schedule": Function(
        lambda d: (d.positive(6), 1.0), differentiable=False, vmap=False, compiles=False
    ),
    "refined_schedule.refined_schedule": Function(
        lambda d: (d.positive(30),), differentiable=False, vmap=False, compiles=False
    ),
    "repa.interpolant": Function(lambda d: (d.normal(4, 3), d.normal(4, 3), 0.5 * d.positive(4), "cosine")),
    "repa.misalignment": Function(lambda d: (d.normal(4, 3, 5), d.normal(4, 3, 5))),
    "runge_kutta.attempted_step": Function(
        lambda d: (turning, d.positive(4), d.normal(4, 3), d.positive(4), d.normal(4, 3), TABLEAUS["tsit5"]),
    ),
    "runge_kutta.first_size": Function(
        lambda d: (turning, d.positive(4), d.normal(4, 3), d.normal(4, 3), d.positive(4), 1e-3, 1e-3),
        differentiable=False,
    ),
    "runge_kutta.rms": Function(lambda d: (d.normal(4, 3),)),
    "runge_kutta.solve": Function(
        lambda d: (turning, d.normal(4, 3), 0.0, 1.0, 0.1, 0.1, TABLEAUS["tsit5"]),
        differentiable=False,  # the lengths of steps are held fixed
        vmap=False,
        compiles=False,
    ),
    "repulsion.repulsion": Function(lambda d: (pair(d), pair(d), "exponential", 0.1), vmap=False),
    "sara.magnitude_below": Function(lambda d: ([d.normal(3, 2), d.normal(5)], 0.5), differentiable=False, vmap=False),
    "sara.nuclear_norm": Function(lambda d: (d.normal(4, 3),)),
    "si.path_importance": Function(
        lambda d: ([one.abs() for one in pair(d)], [one.abs() for one in pair(d)], pair(d), 0.1), vmap=False
    ),
    "sinkhorn.checked_problem": Function(lambda d: (d.positive(4, 3),), vmap=False, compiles=False),
    "sinkhorn.default_tolerance": Function(
        lambda d: (d.positive(4, 3), 0.1), differentiable=False, vmap=False, compiles=False
    ),
    "sinkhorn.dual_of": Function(
        lambda d: (d.positive(4), d.positive(3), (d.normal(4), d.normal(3)), d.positive(4, 3), 1.0)
    ),
    "sinkhorn.dual_value": Function(
        lambda d: (d.positive(4, 3), d.positive(4), d.positive(3), (d.normal(4), d.normal(3)), 1.0),
        differentiable=False,
    ),
    "sinkhorn.entropic_cost": Function(
        lambda d: (d.positive(4, 3), *shares(d.positive(4), d.positive(3)), 1.0), differentiable=False
    ),
    "sinkhorn.fitted_potentials": Function(
        lambda d: (d.positive(4, 3), *shares(d.positive(4), d.positive(3)), 1.0, 1e-12, 20),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "sinkhorn.implicit_potentials": Function(
        lambda d: (d.positive(4, 3), d.positive(4), d.positive(3), (d.normal(4), d.normal(3)), d.positive(4, 3)),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "sinkhorn.marginal_error": Function(lambda d: (d.positive(4, 3), d.positive(4), d.positive(3))),
    "sinkhorn.plan_of": Function(lambda d: (d.positive(4, 3), (d.normal(4), d.normal(3)), 1.0)),
    "sinkhorn.sinkhorn": Function(
        lambda d: (d.positive(4, 3), None, None, 1.0, 1e-12, 20), differentiable=False, vmap=False, compiles=False
    ),
    "sinkhorn.sinkhorn_step": Function(lambda d: (d.positive(4, 3), d.positive(4), d.positive(3), d.normal(4), 1.0)),
    "sinkhorn.transport": Function(
        lambda d: (d.positive(4, 3), d.positive(4), d.positive(3), (d.normal(4), d.normal(3)), 1.0, 1e-9, 1),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "sinkhorn_newton_sparse.newton_direction": Function(
        lambda d: (d.positive(4, 3) / 12.0, d.positive(4) / 4.0, d.positive(3) / 3.0, 1.0, 0.1),
        differentiable=False,
        bfloat16=False,
        vmap=False,
        compiles=False,
    ),
    "sinkhorn_newton_sparse.sinkhorn_newton_sparse": Function(
        lambda d: (d.positive(4, 3), None, None, 1.0, 5, 0.5, 1e-12, 20),
        differentiable=False,
        vmap=False,
        compiles=False,
    ),
    "sinkhorn_newton_sparse.sparsified": Function(lambda d: (d.positive(4, 3), 0.5)),
    "soft_equivariance.relaxed": Function(lambda d: (d.positive(3), 2.0)),
    "soft_equivariance.violation": Function(
        lambda d: (d.normal(6, 3), d.normal(6), shifts(6, 2).double(), shifts(3, 1).double())
    ),
    "solver_reg.accumulated": Function(lambda d: (d.positive(5, 4), d.positive(5, 4), True)),
    "solver_reg.at_random_time": Function(
        lambda d: (d.positive(5, 4), d.positive(5, 4), d.probabilities(4)),
        differentiable=False,  # a jump where the time crosses from one step into the next
    ),
    "sorsa.nonorthonormality": Function(lambda d: ([*pair(d)[1:], d.normal(2, 4)],), vmap=False),
    "sorsa.sorsa_factors": Function(
        lambda d: (torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64)) + 0.1 * d.normal(4, 4), 2),
        differentiable=False,
        vmap=False,
    ),
    "sparse_ot.delta_omega": Function(lambda d: (d.normal(5, 3), 0.5, 2)),
    "sparse_ot.max_omega": Function(lambda d: (d.normal(5, 3), d.positive(3), 0.5, 2)),
    "sparse_ot.sparse_columns": Function(lambda d: (d.normal(5, 3), d.positive(3), 0.5, 2)),
    "sparse_ot.sparse_ot": Function(
        lambda d: (d.positive(4, 3), None, None, None, 0.5), differentiable=False, vmap=False, compiles=False
    ),
    "spatial_dropout.spatially_dropped": Function(lambda d: (d.normal(2, 3, 4), 0.0)),
    "spectral_norm.as_matrix": Function(lambda d: (d.normal(3, 2, 2), 1)),
    "spectral_norm.power_iteration": Function(lambda d: (d.normal(3, 4), d.normal(3), 2)),
    "spectral_norm.spectrally_normalised": Function(lambda d: (d.normal(3, 2, 2), d.positive(3), d.positive(4))),
    "statistics.newcombe_interval": Function(
        lambda d: (d.positive(4), 2.0 + d.positive(4), d.positive(4), 3.0 + d.positive(4)),
        valid=lambda first, of_first, second, of_second: counts(first, of_first) and counts(second, of_second),
    ),
    "statistics.wilson_interval": Function(lambda d: (d.positive(4), 2.0 + d.positive(4)), valid=counts),
    "stereo.block_matching": Function(
        lambda d: (d.normal(12), d.normal(12), torch.arange(4, dtype=torch.float64), 3), differentiable=False
    ),
    "stereo.flattened": Function(lambda d: (d.normal(6), torch.tensor([0, 0, 0, 1, 1, 1])), vmap=False, compiles=False),
    "stereo.matching_costs": Function(
        lambda d: (d.normal(12), d.normal(12), torch.tensor([0.3, 1.2], dtype=torch.float64), 3)
    ),
    "stereo.texture": Function(lambda d: (d.normal(12), 3)),
    "stereo.sampled": Function(lambda d: (d.normal(6), 4.0 * d.probabilities(5))),
    "stablemax.log_s": Function(lambda d: (d.normal(5, 3),)),
    "stablemax.log_stablemax": Function(lambda d: (d.normal(5, 3),)),
    "stablemax.s": Function(lambda d: (d.normal(5, 3),)),
    "subsampled_attention.subsampled_attention": Function(
        lambda d: (d.normal(2, 2, 5, 3), d.normal(2, 2, 5, 3), d.normal(2, 2, 5, 3), torch.tensor([1, 3]), True),
        vmap=False,
    ),
    "subsampled_attention.windowed_attention": Function(
        lambda d: (d.normal(2, 2, 5, 3), d.normal(2, 2, 5, 3), d.normal(2, 2, 5, 3), d.permutation(5), 2, True)
    ),
    "supervised_dictionary.joint_objective": Function(
        lambda d: (
            d.normal(4, 3),
            d.normal(2, 3),
            torch.linalg.qr(d.normal(4, 2))[0],
            d.normal(6, 4),
            torch.arange(6) % 3,
            d.normal(6, 2),
            0.5,
            0.5,
            "filter",
        ),
    ),
    "supervised_dictionary.left_singular_vectors": Function(
        lambda d: (torch.diag(torch.arange(1.0, 5.0, dtype=torch.float64)) + 0.1 * d.normal(4, 4), 2),
        differentiable=False,
        bfloat16=False,
        vmap=False,
    ),
    "variational.gaussian_divergence": Function(
        lambda d: (d.normal(4, 3), d.normal(4, 3), d.normal(4, 3), d.normal(4, 3))
    ),
    "variational.supervised_contrast": Function(lambda d: (d.normal(5, 3), d.labels(5, 2))),
    "vat.virtual_adversarial_direction": Function(
        lambda d: (square_sums, d.normal(4, 3), 0.1, 2), differentiable=False, vmap=False, compiles=False
    ),
    "vib.deviation": Function(lambda d: (d.normal(4, 3),)),
    "vib.rate": Function(lambda d: (d.normal(4, 3), d.positive(4, 3))),
    "vicreg.covariance_penalty": Function(lambda d: (d.normal(5, 3),), smallest=2),  # one sample has no covariance
    "vicreg.variance_hinge": Function(lambda d: (0.5 * d.normal(5, 3),)),
    "virtual_outlier.energy": Function(lambda d: (d.normal(4, 3),)),
    "virtual_outlier.energy_hinge": Function(lambda d: (d.normal(4, 3),)),
    "virtual_outlier.virtual_outliers": Function(
        lambda d: (d.normal(6, 3), 0.5 * d.normal(4, 3), 5, 2, 3), differentiable=False
    ),
    "vrex.risk_variance": Function(lambda d: (d.positive(3), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))),
    "wavelets.inverse_wavelet2d": Function(lambda d: (d.normal(2, 4, 8), 2, 2)),
    "wavelets.wavelet2d": Function(lambda d: (d.normal(2, 4, 8), 2, 2)),
    "wavelets.wavelet_matrix": Function(lambda d: (6, 3, d.normal(1)), differentiable=False, vmap=False),
    "weight_compander.companded": Function(lambda d: (d.normal(4, 3), d.positive(1), d.positive(1))),
    "weight_compander.expanded": Function(lambda d: (0.3 * d.normal(4, 3), d.positive(1) + 1.0, d.positive(1))),
    "weight_norm.of_length": Function(
        lambda d: (d.positive(3, 1), d.normal(3, 4)), valid=lambda _, v: bool((v != 0.0).any(1).all())
    ),
    "wgsef.envelope": Function(lambda d: (d.positive(3, 5), 2)),
    "wgsef.envelope_prox": Function(lambda d: (d.positive(3, 5), 0.3, 2)),
}


def public_functions() -> dict[str, Callable[..., Any]]:
    """Every public function of tensors of every method's module, and of what methods share, as `module.function`."""
    modules = [inspect.getmodule(listing.load()) for listing in catalogue().values()]
    modules += [
        importlib.import_module(f"tikhon.math.{one.name}") for one in pkgutil.iter_modules(tikhon.math.__path__)
    ]
    found = {}
    for module in modules:
        for key, function in vars(module).items():
            if not inspect.isfunction(function) or key.startswith("_") or function.__module__ != module.__name__:
                continue
            annotations = [str(one.annotation) for one in inspect.signature(function).parameters.values()]
            if any("Tensor" in one for one in annotations):
                found[f"{module.__name__.rpartition('.')[2]}.{key}"] = function
    return found
