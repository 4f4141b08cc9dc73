"""Kernels: regression in closed form, and random features that stand for a kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
