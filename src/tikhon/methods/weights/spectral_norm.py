"""Spectral norm: divide every weight by its largest singular value, so that no layer stretches its input."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.export import merge_parametrization
from tikhon.core.method import Method
from tikhon.core.parameters import Where, check_parametrizable, select
from tikhon.core.step import Step

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def power_iteration(matrix: Tensor, u: Tensor, iterations: int = 1) -> tuple[Tensor, Tensor]:
    """Closer to the leading singular vectors (u, v) of a matrix (m, n): v <- W^T u / |W^T u|, u <- W v / |W v|.

    u: (m,), of length 1; iterations: at least 1. Returns (m,) and (n,). The error falls by (sigma_2 / sigma_1)^2 each
    time (Miyato et al. 2018, algorithm 1). A matrix of zeros gives zeros.

    >>> power_iteration(torch.diag(torch.tensor([2.0, 0.0])), torch.tensor([0.6, 0.8]))
    (tensor([1., 0.]), tensor([1., 0.]))
    """
    for _ in range(iterations):
        v = F.normalize(matrix.mT @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return u, v


def spectrally_normalised(weight: Tensor, u: Tensor, v: Tensor, dim: int = 0) -> Tensor:
    """W / (u^T W v), of the weight's shape; W is the weight as a matrix of its units, dimension `dim`, by all others.

    weight: of two or more dimensions; u, v: (m,), (n,), its leading singular vectors, held constant; 0 for W = 0.
    """
    kind = weight.device.type
    # The norm is a quotient's denominator: in full precision.
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        sigma = torch.vdot(u, as_matrix(weight, dim) @ v)
    # The gradient of a product passes over the weight less often than that of a quotient.
    return weight * (sigma + (sigma == 0)).reciprocal()


def as_matrix(weight: Tensor, dim: int = 0) -> Tensor:
    """(m, n): units, which are dimension `dim`, by everything else."""
    return (weight.movedim(dim, 0) if dim else weight).flatten(1)


class SpectrallyNormalised(nn.Module):
    """The parametrization, with the singular vectors as buffers. No pass moves them: the method does, once a step."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, dim: int, generator: torch.Generator, iterations: int) -> None:
        super().__init__()
        self.dim = dim
        matrix = as_matrix(weight.detach(), dim)
        start = torch.randn(len(matrix), generator=generator, dtype=torch.float64).to(matrix)
        u, v = power_iteration(matrix, F.normalize(start, dim=0), iterations)
        self.register_buffer("u", u)
        self.register_buffer("v", v)

    def forward(self, weight: Tensor) -> Tensor:
        return spectrally_normalised(weight, self.u, self.v, self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


@torch.no_grad()
def _follow(kinds: Sequence[SpectrallyNormalised], weights: Sequence[Tensor], iterations: int) -> None:
    """What `power_iteration` does, written into the vectors of all weights at once."""
    matrices = [as_matrix(weight, kind.dim) for kind, weight in zip(kinds, weights, strict=True)]
    us, vs = [kind.u for kind in kinds], [kind.v for kind in kinds]
    for _ in range(iterations):
        for matrix, u, v in zip(matrices, us, vs, strict=True):
            torch.mv(matrix.mT, u, out=v)
        _normalise(vs)
        for matrix, u, v in zip(matrices, us, vs, strict=True):
            torch.mv(matrix, v, out=u)
        _normalise(us)


def _normalise(vectors: list[Tensor]) -> None:
    """`F.normalize` in place."""
    lengths = torch._foreach_norm(vectors)
    torch._foreach_clamp_min_(lengths, 1e-12)
    torch._foreach_div_(vectors, lengths)


class SpectralNorm(Method):
    """Divide every weight by its spectral norm, estimated by power iteration as training goes on.

    Use it where a network must not be steep: the discriminator of a GAN above all, critics, models whose answers must
    not leap between neighbouring inputs. With layers of norm 1 and 1-Lipschitz activations the network is 1-Lipschitz,
    so that outputs are small: give a classifier a temperature, or leave its last layer out with where=. Not together
    with batch norm, which scales again, where the bound matters.

        W' = W / sigma(W),   sigma(W) = u^T W v,   v <- W^T u / |W^T u|,  u <- W v / |W v|  once a step

    Gradients go through sigma with u and v held constant. A convolution's norm is that of its weight as a matrix of
    filters by everything else, as in the paper, not of the linear map that it is, which is up to about the square root
    of the kernel's positions larger. The network changes at once when it is prepared. As in `torch.nn.utils.
    parametrizations.spectral_norm` there is one iteration a step; but no forward pass moves u and v, so that second
    passes, micro-batches and refused batches see one and the same weight.

    iterations: of the power method after every step; where: which weights.

    Cost: two products of the weight with a vector a step, one a forward pass. Nothing after export: W' is merged.
    Reference: Miyato, Kataoka, Koyama, Yoshida 2018, arXiv 1802.05957.

    >>> recipe = tikhon.Recipe(tikhon.SpectralNorm())
    """

    card = Card(
        title="Spectral Normalization for Generative Adversarial Networks",
        authors="Miyato, Kataoka, Koyama, Yoshida",
        year=2018,
        arxiv="1802.05957",
        problems=("stability", "robustness"),
        formula=r"W' = W/\sigma(W),\quad \sigma(W) = u^\top W v",
        claim="Stabilises the training of the discriminator of GANs, at learning rates where others fail.",
        helps="Discriminators and critics; networks that must not be steep.",
        hurts="Classifiers that need large scores; little is left of the bound behind batch norm.",
        cost="Three products of each weight with a vector a step.",
        neutral="",
    )
    slots = {"prepare": "parametrize", "after_step": "restore", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights"})
    exempt = {"neutral": "a weight of norm 1 is another weight"}

    def __init__(self, iterations: int = 1, where: Where = "weights") -> None:
        super().__init__()
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise TikhonError(f"iterations must be a positive integer, not {iterations!r}.")
        self.iterations, self.where = iterations, where
        self._followed: list[tuple[SpectrallyNormalised, nn.Module]] = []

    def check(self, model: nn.Module) -> None:
        chosen = select(model, self.where)
        check_parametrizable(model, chosen, self.key)
        for one in chosen:
            if one.leaf.ndim < 2 or not bool(one.leaf.any()):
                raise TikhonError(
                    f"{self.key} divides a matrix by its norm, and {one.name} of shape {tuple(one.leaf.shape)} "
                    f"{'is all zeros' if one.leaf.ndim > 1 else 'is none'}: leave it out with where=."
                )

    def prepare(self, model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)  # where the iteration starts is soon forgotten
        for one in select(model, self.where):
            dim = 1 if isinstance(one.module, TRANSPOSED) else 0
            kind = SpectrallyNormalised(one.leaf, dim, generator, iterations=15)
            parametrize.register_parametrization(one.module, one.attribute, kind)
            self._followed.append((kind, one.module.get_submodule(f"parametrizations.{one.attribute}")))

    def after_step(self, model: nn.Module, step: Step) -> None:
        kinds = [kind for kind, _ in self._followed]
        _follow(kinds, [chain.get_parameter("original") for _, chain in self._followed], self.iterations)

    def export(self, model: nn.Module) -> nn.Module:
        merge_parametrization(model, SpectrallyNormalised)
        return model
