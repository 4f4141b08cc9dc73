"""Adversarial strength: how far a linear boundary is tilted away from the one half-way between the classes' means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.math.precision import at_least_float32

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["adversarial_strength", "BoundaryTilt", "deviation_cosine", "hyperplane_distances"]

card = Card(
    title="A Boundary Tilting Persepective on the Phenomenon of Adversarial Examples",
    authors="Tanay, Griffin",
    year=2016,
    arxiv="1608.07690",
    problems=("robustness", "overfitting"),
    formula=r"s = \frac{1}{\cos\delta},\quad \cos\delta = \frac{|w^\top(\mu_1-\mu_0)|}{\lVert w\rVert\,"
    r"\lVert\mu_1-\mu_0\rVert}",
    claim="Adversarial strength is the deviation from the nearest-centroid direction; it can grow without bound at "
    "equal accuracy, and the level of regularisation controls it.",
    helps="Linear classifiers, last layers among them: whether small changes of the input that flip the answer come "
    "from over-fitting in directions in which the data hardly vary.",
    hurts="Classes whose best boundary is not between their means: strength then is the price of accuracy.",
    cost="Two means and a product.",
    neutral="",
    kind="measure",
)


@dataclass(frozen=True, eq=False)
class BoundaryTilt:
    """angle: delta, in radians, in [0, pi/2]; strength: 1 / cos(delta), at least 1, how many times smaller the changes
    are that reach this boundary than those that reach the nearest-centroid boundary, from the classes' means;
    distances: (N,), of samples from the boundary; accuracy; plane: (N, 2), samples along the direction of the means and
    along what of w is at right angles to it, from the midpoint of the means; offset: of the boundary there, which is
    where <normal, place> = offset, normal (2,); labels: (N,)."""

    angle: float
    strength: float
    distances: Tensor
    accuracy: float
    plane: Tensor
    normal: Tensor
    offset: float
    labels: Tensor

    def plot(self, axes: Axes | None = None) -> Axes:
        """The samples in the plane of the two directions, with the boundary and that of the nearest centroid."""
        axes = given_or_new(axes)
        for label in (0, 1):
            across, along = self.plane[self.labels == label].T.numpy()
            axes.scatter(across, along, s=8, alpha=0.6, label=f"class {label}")
        axes.axvline(0.0, linestyle=":", color="black", label="nearest centroid")
        (x, y), (dx, dy) = (self.offset * self.normal).tolist(), self.normal.tolist()
        axes.axline((x, y), (x - dy, y + dx), color="black", label="boundary")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("along the difference of the means")
        axes.set_ylabel("along the tilt")
        axes.set_title(f"deviation {torch.rad2deg(torch.tensor(self.angle)):.1f}°, strength {self.strength:.2f}")
        axes.legend()
        return axes


def deviation_cosine(weight: Tensor, direction: Tensor) -> Tensor:
    """|<w, c>| / (||w|| ||c||) of two vectors (D,); in [0, 1], a scalar. 0 where one of them is 0.

    >>> deviation_cosine(torch.tensor([3.0, 4.0]), torch.tensor([-2.0, 0.0]))
    tensor(0.6000)
    """
    return (_unit(at_least_float32(weight)) @ _unit(at_least_float32(direction))).abs().clamp_max(1.0)


def _unit(vector: Tensor) -> Tensor:
    """The direction of a vector however short or long it is, whose squares may leave the range of numbers; 0 of 0."""
    tiny = torch.finfo(vector.dtype).tiny
    scaled = vector / vector.abs().amax().clamp_min(tiny)
    length: Tensor = torch.linalg.vector_norm(scaled)
    return scaled / length.clamp_min(tiny)


def hyperplane_distances(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """|<w, x> + b| / ||w|| of every row x: the length of the smallest change that reaches the boundary.

    inputs: (N, D); weight: (D,), not 0; bias: (). Returns (N,), at least 0.

    >>> hyperplane_distances(torch.tensor([[1.0, 1.0]]), torch.tensor([3.0, 4.0]), torch.tensor(-2.0))
    tensor([1.])
    """
    inputs, weight, bias = at_least_float32(inputs), at_least_float32(weight), at_least_float32(bias)
    length: Tensor = torch.linalg.vector_norm(weight)
    return (inputs @ weight + bias).abs() / length


def adversarial_strength(inputs: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> BoundaryTilt:
    """How far a linear classifier of two classes deviates from the nearest-centroid one, and how near its boundary is.

        cos(delta) = |<w, mu_1 - mu_0>| / (||w|| ||mu_1 - mu_0||),   strength = 1 / cos(delta)

    inputs: (N, D), samples of both classes; labels: (N,), 0 or 1; weight, bias: (D,) and (), of the score <w, x> + b,
    positive for class 1; of a softmax over two classes the differences of its rows. Raises `TikhonError` where shapes
    do not fit, a class has no sample, the means are equal or the weight is 0.
    Source: Tanay, Griffin 2016, arXiv 1608.07690, section 4.

    >>> import torch, tikhon
    >>> inputs = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    >>> found = tikhon.adversarial_strength(inputs, torch.tensor([0, 1]), torch.tensor([1.0, 1.0]), torch.tensor(0.0))
    >>> round(found.strength, 3), found.distances
    (1.414, tensor([0.7071, 0.7071]))
    """
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1] or weight.shape != inputs.shape[1:] or bias.ndim:
        raise TikhonError(
            "adversarial_strength needs inputs (N, D), labels (N,), weight (D,) and bias (), not "
            f"{tuple(inputs.shape)}, {tuple(labels.shape)}, {tuple(weight.shape)} and {tuple(bias.shape)}."
        )
    if not torch.equal(labels.unique(), torch.tensor([0, 1]).to(labels)):
        raise TikhonError("adversarial_strength needs samples of two classes, with the labels 0 and 1.")
    x, w, b = (at_least_float32(one.detach()).cpu() for one in (inputs, weight, bias))
    y = labels.cpu()
    means = torch.stack([x[y == label].mean(0) for label in (0, 1)])
    direction, middle = means[1] - means[0], means.mean(0)
    if not bool((direction != 0).any()) or not bool((w != 0).any()):
        raise TikhonError("A boundary without direction: the weight is 0, or the means of the classes are equal.")
    cosine = deviation_cosine(w, direction)
    first = direction / torch.linalg.vector_norm(direction)
    tilt = w - (w @ first) * first
    second = tilt / torch.linalg.vector_norm(tilt).clamp_min(torch.finfo(w.dtype).tiny)
    scores = x @ w + b
    length = torch.linalg.vector_norm(w)
    return BoundaryTilt(
        angle=float(torch.arccos(cosine)),
        strength=float(1.0 / cosine),
        distances=hyperplane_distances(x, w, b),
        accuracy=float(((scores > 0) == (y == 1)).double().mean()),
        plane=torch.stack([(x - middle) @ first, (x - middle) @ second], dim=1),
        normal=torch.stack([w @ first, w @ second]) / length,
        offset=float(-(w @ middle + b) / length),
        labels=y,
    )
