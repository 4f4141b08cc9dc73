"""Kernels: distances and mixtures of widths, regression in closed form, random features that stand for a kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """||x_i - y_j||^2: x (n, d), y (m, d) -> (n, m), at least 0.

    >>> squared_distances(torch.zeros(1, 2), torch.ones(1, 2))
    tensor([[2.]])
    """
    centre = y.mean(0)  # far from the origin the difference of large squares loses digits
    x, y = x - centre, y - centre
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2.0 * x @ y.T).clamp_min(0.0)


def gaussian_mixture(squared: Tensor, widths: Tensor) -> Tensor:
    """The mean over m of exp(-||x - y||^2 / w_m): kernels of several widths in one.

    squared: (n, m), squared distances; widths: (M,), positive, in their unit. Returns (n, m), in [0, 1]. Source: Long,
    Cao, Wang, Jordan 2015, arXiv 1502.02791.

    >>> gaussian_mixture(torch.tensor([[0.0, 1.0]]), torch.tensor([1.0]))
    tensor([[1.0000, 0.3679]])
    """
    return torch.exp(-squared[:, :, None] / widths).mean(-1)


def kernel_ridge(kernel: Tensor, cross: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Y (K + ridge I)^-1 k(x): ridge regression in the space of a kernel (Saunders, Gammerman, Vovk 1998).

    kernel: K, (N, N), symmetric and positive semi-definite, of the support; cross: (N, B), of the support with the
    queries; targets: (N, C); ridge: positive. Returns predictions (B, C).

    >>> kernel_ridge(torch.eye(2), torch.eye(2), torch.tensor([[2.0], [4.0]]), ridge=1.0)
    tensor([[1.],
            [2.]])
    """
    damped = kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    weights: Tensor = torch.linalg.solve(damped, targets)
    return cross.T @ weights


def fourier_features(x: Tensor, directions: Tensor, phases: Tensor) -> Tensor:
    """sqrt(2 / M) cos(x W + b), whose products tend to a Gaussian kernel as M grows (Rahimi and Recht 2007).

    x: (N, D); directions: W, (D, M), drawn from N(0, 1 / width^2) for the kernel exp(-||x - y||^2 / (2 width^2));
    phases: b, (M,), uniform in [0, 2 pi). Returns (N, M).

    >>> fourier_features(torch.zeros(1, 3), torch.zeros(3, 2), torch.zeros(2))
    tensor([[1., 1.]])
    """
    return math.sqrt(2.0 / len(phases)) * torch.cos(x @ directions + phases)
