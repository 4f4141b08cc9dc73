"""Margins: how far samples are from where the answer changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.core.passes import eval_mode
from tikhon.core.sensitivity import one_float_tensor
from tikhon.math.attacks import Norm, check_attack, dual_norm, rows_norm, steepest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["margins", "Margins", "linear_margins"]


@dataclass(frozen=True, eq=False)
class Margins:
    """distances: (N,), the length of the change of each sample that was found to change the answer, infinite where none
    was; examples: (N, ...), the changed samples; norm: of the lengths; right: (N,), whether the answer was right."""

    distances: Tensor
    examples: Tensor
    norm: Norm
    right: Tensor

    @property
    def median(self) -> float:
        """The median distance of the samples whose answer is right; nan where none is."""
        return float(self.distances[self.right].median())

    def accuracy_within(self, radius: float) -> float:
        """The share of samples that are right and stay so under every change found that is no longer than `radius`."""
        return float((self.right & (self.distances > radius)).double().mean())

    def plot(self, axes: Axes | None = None) -> Axes:
        """Accuracy against the length of the change, which is the distribution of margins read from the right."""
        axes = given_or_new(axes)
        reached = self.distances[self.right].cpu().sort().values
        reached = reached[reached.isfinite()]
        steps = int(self.right.sum()) - torch.arange(len(reached) + 1)
        axes.step([0.0, *reached.tolist()], (steps / len(self.right)).tolist(), where="post")
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel("length of the change" + (" (largest entry)" if self.norm == "inf" else ""))
        axes.set_ylabel("accuracy")
        axes.set_title(f"median margin {self.median:.3g}")
        return axes


def linear_margins(scores: Tensor, weights: Tensor, answers: Tensor, norm: Norm = "2") -> Tensor:
    """The exact distance of samples from where a linear classifier changes its answer; negative where it is wrong.

        min_{k != y} (s_y - s_k) / ||w_y - w_k||*

    scores: (N, K), W x + b, K at least 2; weights: W, (K, D); answers: y, (N,) int64; norm: in which the change is
    measured; the norm of the weights is its dual. Returns (N,); infinite where no change helps.

    >>> linear_margins(torch.tensor([[5.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([0]))
    tensor([1.])
    """
    gaps = scores.gather(1, answers[:, None]) - scores
    lengths = dual_norm(weights[answers][:, None] - weights, norm)
    own = torch.arange(scores.shape[1], device=scores.device) == answers[:, None]
    found = gaps / torch.where(lengths > 0, lengths, 1.0)
    # Equal weights: whatever the change, the gap stays as it is.
    never = torch.where(gaps < 0, -torch.inf, torch.inf)
    return torch.where(lengths > 0, found, never).masked_fill(own, torch.inf).amin(1)


def margins(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    norm: Norm = "2",
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    valid: tuple[float, float] | None = None,
) -> Margins:
    """How small a change of each sample changes the answer: an upper bound of the margin, exact for linear models.

    Steps go to the nearest boundary of the model made linear where it stands, until the answer changes (DeepFool); then
    bisection back along the straight line to the sample finds where it changes first on that line.

    model: (N, ...) -> scores (N, K), K at least 2, taken as in eval mode; inputs: (N, ...), floating point; labels:
    (N,) int64, only for which answers are right: a margin is about the model's own answer; norm: of the change; steps:
    at the most; overshoot: by how much a step goes beyond, 0.02 in the paper; candidates: among how many of the classes
    with the highest scores the nearest boundary is sought, 10 in the official code; valid: the least and the greatest
    value of an input. Raises `TikhonError` for settings or outputs that do not fit.

    Cost: a forward pass and `candidates` backward passes a step; it ends when all answers have changed.
    Source: Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv 1511.04599, algorithm 2; equation 12 for the largest entry.

    >>> model = nn.Linear(2, 2)
    >>> for one, value in ((model.weight, [[3.0, 4.0], [0.0, 0.0]]), (model.bias, [0.0, 0.0])):
    ...     _ = one.data.copy_(torch.tensor(value))
    >>> round(float(margins(model, torch.tensor([[3.0, 4.0]]), torch.tensor([0])).distances), 3)
    5.0
    """
    check_attack(steps, norm, valid)
    x = one_float_tensor(inputs, "margins").detach()
    if candidates < 2 or not overshoot > 0.0:
        raise TikhonError(f"margins needs 2 candidates and a positive overshoot, not {candidates} and {overshoot}.")
    with eval_mode(model), torch.no_grad():
        scores = model(x)
        if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2 or labels.shape != x.shape[:1]:
            raise TikhonError("margins needs a model that returns scores (N, K), K at least 2, and labels (N,).")
        answers = scores.argmax(1)
        far = x.clone()
        for _ in range(steps):
            still = (model(far).argmax(1) == answers).nonzero()[:, 0]
            if not len(still):
                break
            step = _to_boundary(model, far[still], answers[still], min(candidates, scores.shape[1]), norm)
            moved = far[still] + (1.0 + overshoot) * step
            far[still] = moved if valid is None else moved.clamp(*valid)
        changed = model(far).argmax(1) != answers
        far = _back(model, x, far, answers)
    lengths = rows_norm(far - x).flatten() if norm == "2" else (far - x).flatten(1).abs().amax(1)
    return Margins(torch.where(changed, lengths, torch.inf), far, norm, answers == labels)


def _to_boundary(model: nn.Module, inputs: Tensor, answers: Tensor, candidates: int, norm: Norm) -> Tensor:
    """The smallest change that reaches a boundary of the model made linear, for each input, and a little more."""
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        scores = model(inputs)
        others = scores.detach().scatter(1, answers[:, None], -torch.inf).topk(candidates - 1).indices
        gaps = scores.gather(1, answers[:, None]) - scores.gather(1, others)
        slopes = [torch.autograd.grad(gap.sum(), inputs, retain_graph=True)[0] for gap in gaps.unbind(1)]
    gradient = torch.stack(slopes, dim=1)
    lengths = dual_norm(gradient.flatten(2), norm)
    tiny = torch.finfo(lengths.dtype).tiny
    distances = torch.where(lengths > 0, gaps.detach() / lengths.clamp_min(tiny), torch.inf)
    nearest = distances.argmin(1)
    rows = torch.arange(len(inputs), device=inputs.device)
    distance = distances[rows, nearest]
    # The little more ends the crawl towards a boundary of which a step falls short again and again.
    distance = torch.where(distance.isfinite(), distance, 0.0) + 1e-4 * inputs.detach().abs().flatten(1).amax(1)
    return -steepest(gradient[rows, nearest], norm) * distance.reshape(-1, *[1] * (inputs.ndim - 1))


def _back(model: nn.Module, near: Tensor, far: Tensor, answers: Tensor, halvings: int = 30) -> Tensor:
    """On the lines from `near` to `far`, whose answers differ, points that keep the far answer and hardly more."""
    low = torch.zeros(len(near), *[1] * (near.ndim - 1)).to(near)
    high = torch.ones_like(low)
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        changed = (model(torch.lerp(near, far, middle)).argmax(1) != answers).reshape(low.shape)
        low, high = torch.where(changed, low, middle), torch.where(changed, middle, high)
    return torch.lerp(near, far, high)
