"""Distances between features that are no norm of a difference."""

from __future__ import annotations

from torch import Tensor

from tikhon.math.kernels import squared_distances

SMALLEST = 1e-12
"""Sums of squares are kept above this: an anchor whose entries are all the same has no signal."""


def snr_distances(anchors: Tensor, others: Tensor) -> Tensor:
    """Var_k(b_jk - a_ik) / Var_k(a_ik): noise over signal (Yuan et al. 2019, arXiv 1904.02616).

    anchors: a, (n, D); others: b, (m, D); variances are over the D features. Returns (n, m), at least 0. It is not
    symmetric, and does not change where all features are scaled or a number is added to those of a sample. As products
    of matrices: nothing of n x m x D is held; distances below about 1e-6 are rounding in float32.

    >>> snr_distances(torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, 1.0], [2.0, -2.0]]))
    tensor([[0., 1.]])
    """
    signal, received = (one - one.mean(1, keepdim=True) for one in (anchors, others))
    return squared_distances(signal, received) / signal.square().sum(1, keepdim=True).clamp_min(SMALLEST)
