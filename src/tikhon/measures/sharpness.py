"""Sharpness: how steeply a loss curves around the weights, from products with its Hessian."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tikhon.core.batches import call
from tikhon.core.errors import TikhonError
from tikhon.core.figures import given_or_new
from tikhon.core.losses import as_loss, weighted_losses
from tikhon.core.passes import eval_mode, unwrapped
from tikhon.core.step import seed_for
from tikhon.core.target import Target
from tikhon.math.lanczos import lanczos

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sharpness", "Sharpness", "LossHessian"]


class LossHessian:
    """The Hessian of a mean loss over a data set, by all parameters that train, as its products with vectors.

    The model is taken as in eval mode, and nothing of it moves: weights, gradients, statistics and modes stay.

    model: any module; base: the loss as for a `Recipe`, `F.cross_entropy`, `nn.CrossEntropyLoss(...)`, `F.mse_loss` or
    a function (output, target) -> (B,); batches: pairs of inputs and target that can be gone through again and again,
    such as a list or a loader without shuffling or augmentation, on the model's device. The mean is that of the whole
    set, whatever the sizes of the batches.

    Cost: for each product a forward pass and about three backward passes over the data.

    >>> data = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
    >>> hessian = LossHessian(nn.Linear(1, 1, bias=False), nn.functional.mse_loss, data)
    >>> hessian.products(torch.ones(1, 1))  # 2 E x^2
    tensor([[10.]])
    """

    def __init__(self, model: nn.Module, base: Any, batches: Iterable[tuple[Any, Tensor]]) -> None:
        if iter(batches) is batches:
            raise TikhonError("The batches are used up once they are read: give a list or a loader, not an iterator.")
        self.model = unwrapped(model)
        self.loss, self._smoothing = as_loss(base)
        self.batches = batches
        self._names = [name for name, one in self.model.named_parameters() if one.requires_grad]
        if not self._names:
            raise TikhonError(f"{type(self.model).__name__} has no parameter that requires a gradient.")

    @property
    def weights(self) -> list[Tensor]:
        """The parameters as they are now."""
        return [self.model.get_parameter(name).detach() for name in self._names]

    @property
    def size(self) -> int:
        """How many numbers train."""
        return sum(one.numel() for one in self.weights)

    def products(self, vectors: Tensor) -> Tensor:
        """H v of every row v. vectors: (K, P), in the order of `model.parameters()`. Returns (K, P)."""
        weights = self.weights
        total, mass = torch.zeros_like(vectors), vectors.new_zeros(())
        rnn = any(isinstance(module, nn.RNNBase) for module in self.model.modules())
        # Fused attention has no second derivative, and cuDNN's recurrences none in eval mode.
        attention, recurrence = sdpa_kernel(SDPBackend.MATH), cudnn.flags(enabled=cudnn.enabled and not rnn)
        with eval_mode(self.model), torch.enable_grad(), attention, recurrence:
            for inputs, target in self.batches:
                loss, weight = self._loss([one.requires_grad_() for one in weights], inputs, target)
                total += _products(loss, weights, vectors)
                mass += weight
        if not bool(mass > 0):
            raise TikhonError("There are no samples to take the loss of: is the list of batches empty?")
        return total / mass

    def _loss(self, weights: list[Tensor], inputs: Any, target: Tensor) -> tuple[Tensor, Tensor | int]:
        """The sum of the samples' losses and what they count."""
        state = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        state |= dict(zip(self._names, weights, strict=True))
        output = call(lambda *args, **kwargs: functional_call(self.model, state, args, kwargs), inputs)
        self.loss.refuse(output, target)
        wanted = Target.of(target).smooth(self._smoothing) if self._smoothing else Target.of(target)
        losses, masses = weighted_losses(self.loss, output, wanted)
        return losses.sum(), len(losses) if masses is None else masses.detach().sum()


def _products(loss: Tensor, weights: list[Tensor], vectors: Tensor) -> Tensor:
    """H v of every row v, by differentiating <gradient, v>."""
    gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    # What the loss is linear in has a gradient that depends on nothing.
    curved = [place for place, one in enumerate(gradients) if one is not None and one.requires_grad]
    rows = []
    for vector in vectors:
        parts = vector.split([one.numel() for one in weights])
        along = [parts[place].view_as(weights[place]) for place in curved]
        found: Any = [None] * len(weights)
        if curved:
            chosen = [gradients[place] for place in curved]
            found = torch.autograd.grad(chosen, weights, along, retain_graph=True, allow_unused=True)
        zeros = (
            torch.zeros_like(part) if one is None else one.flatten() for part, one in zip(parts, found, strict=True)
        )
        rows.append(torch.cat(list(zeros)))
    return torch.stack(rows)


@dataclass(frozen=True, eq=False)
class Sharpness:
    """The Hessian of a loss in numbers; tensors are float64 on the CPU.

    eigenvalues: (count,), the largest, from the largest down; errors: (count,): an eigenvalue lies within this of each;
    trace: an estimate; trace_error: its standard error; frobenius: an estimate of the root of the sum of squared
    eigenvalues; nodes, weights: (m,), places on the axis of eigenvalues and the share of the spectrum near each.
    """

    eigenvalues: Tensor
    errors: Tensor
    trace: float
    trace_error: float
    frobenius: float
    nodes: Tensor
    weights: Tensor

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.eigenvalues[0])

    def plot(self, axes: Axes | None = None) -> Axes:
        """The density of eigenvalues on logarithmic axes, a Gaussian about every node; the largest are marked."""
        axes = given_or_new(axes)
        reach = float(self.nodes.abs().max()) or 1.0
        width = 0.02 * reach
        places = torch.linspace(float(self.nodes.min()) - 4 * width, float(self.nodes.max()) + 4 * width, 2000)
        bells = (-0.5 * ((places.double()[:, None] - self.nodes) / width).square()).exp() / (width * 2.5066)
        axes.semilogy(places.numpy(), (bells @ self.weights).clamp_min(1e-12).numpy())
        for value in self.eigenvalues.tolist():
            axes.axvline(value, linestyle=":", color="black", linewidth=1.0)
        axes.set_ylim(bottom=1e-9 / reach)
        axes.set_xlabel("eigenvalue of the Hessian")
        axes.set_ylabel("density")
        axes.set_title(f"largest {self.largest:.3g}, trace {self.trace:.3g} ± {self.trace_error:.2g}")
        return axes


def sharpness(
    model: nn.Module,
    base: Any,
    batches: Iterable[tuple[Any, Tensor]],
    count: int = 1,
    steps: int = 100,
    probes: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Sharpness:
    """The largest eigenvalues, the trace and the density of the Hessian of a loss over a whole data set.

    The eigenvalues come from Lanczos, the trace from Hutchinson's tr H = E z^T H z with signs z, whose H z also give
    ||H||_F^2 = E ||H z||^2. A model whose layers are followed by normalisation can be as sharp as one likes without
    computing anything else: compare there only what is invariant to scale, or trained alike.

    model, base, batches: as for `LossHessian`; count: how many of the largest eigenvalues; steps: of Lanczos at the
    most; it ends when the eigenvalues are known to within `tolerance`, a share of the largest magnitude; probes: of
    Hutchinson, at least 2; seed: of start vector and probes. Raises `TikhonError` where there is nothing to measure.

    Cost: at most `steps` + `probes` products; memory: `steps` vectors as long as the parameters.
    Source: Lanczos 1950; Hutchinson 1990; density as in Ghorbani, Krishnan, Xiao 2019, arXiv 1901.10159.

    >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
    >>> found = sharpness(nn.Linear(2, 1, bias=False), nn.functional.mse_loss, data, count=2)
    >>> found.eigenvalues, round(found.trace, 4)
    (tensor([4.0000, 1.0000], dtype=torch.float64), 5.0)
    """
    if count < 1 or steps < count or probes < 2:
        raise TikhonError(
            f"sharpness needs count of at least 1, no more than steps, and 2 probes, not {count}, {steps} and {probes}."
        )
    hessian = LossHessian(model, base, batches)
    like = hessian.weights[0]
    generator = torch.Generator().manual_seed(seed_for("sharpness", seed))
    start = torch.randn(hessian.size, generator=generator, dtype=torch.float64).to(like)
    found = lanczos(lambda one: hessian.products(one[None])[0], start, steps, count, tolerance, seed)
    quadratic, squared = [], []
    for rows in torch.arange(probes).split(10):  # the graph of a batch's gradient serves several probes
        signs = (2.0 * torch.randint(2, (len(rows), hessian.size), generator=generator) - 1.0).to(like)
        products = hessian.products(signs)
        quadratic.append((signs * products).double().sum(1).cpu())
        squared.append(products.double().square().sum(1).cpu())
    traces = torch.cat(quadratic)
    return Sharpness(
        eigenvalues=found.values[:count],
        errors=found.errors[:count],
        trace=float(traces.mean()),
        trace_error=float(traces.std()) / probes**0.5,
        frobenius=float(torch.cat(squared).mean().sqrt()),
        nodes=found.values,
        weights=found.weights,
    )
