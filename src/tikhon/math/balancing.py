"""Newton's step on the two potentials of a transport plan, from the entries of the plan that count."""

from __future__ import annotations

from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

Pair = tuple[Tensor, Tensor]
RIDGE = 1e-10
"""On a diagonal of ones, so that rounding leaves a factor to what is singular."""


def balancing_step(entries: Tensor, values: Tensor, diagonal: Pair, right: Pair, share: float) -> tuple[Pair, int]:
    """x (n,) and y (m,) with diag(r) x + W y = u and W^T x + diag(c) y = v, and how many iterations that took.

    entries, values: (K,), the places in W (n, m), counted row after row, where it is not 0, and what is there, at least
    0; diagonal: r (n,) and c (m,), positive, no less than the sums of W, so that the matrix has no negative eigenvalue;
    right: u (n,) and v (m,); share: of the right side's norm, both scaled as below, that may be left.

    With K = diag(r)^-1/2 W diag(c)^-1/2 and y eliminated, conjugate gradients meet I - K K^T: the diagonal is scaled
    to ones, and half the iterations do. Where W nearly falls apart into blocks even n / 4 do not, and a Cholesky factor
    of the matrix (n, n) costs less than going on. All on the CPU in float64, whatever the arguments are: products with
    K are so short that on an accelerator its replies would take longer.

    >>> half = torch.tensor([0.5, 0.5])
    >>> right = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> balancing_step(torch.tensor([0, 3]), torch.tensor([0.4, 0.3]), (half, half), right, 1e-6)[0]
    (tensor([ 5.5556, -1.8750]), tensor([-4.4444,  3.1250]))
    """
    r, c, u, v = (one.double().cpu().numpy() for one in (*diagonal, *right))
    n, m = shape = len(r), len(c)
    r, c = r**-0.5, c**-0.5
    i, j = np.divmod(entries.cpu().numpy(), m)
    k = csr_matrix((values.double().cpu().numpy() * r[i] * c[j], (i, j)), shape=shape)
    transposed = k.T
    wanted = r * u - k @ (c * v)
    iterations = count()
    x: NDArray[np.float64]
    x, unfinished = cg(
        LinearOperator((n, n), lambda z: z - k @ (transposed @ z), dtype=np.float64),
        wanted,
        rtol=share,
        atol=0.0,
        maxiter=10 + n // 4,
        callback=lambda _: next(iterations),
    )
    if unfinished:
        matrix = torch.eye(n, dtype=torch.float64).mul_(1.0 + RIDGE).sub_(torch.from_numpy((k @ transposed).toarray()))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            x = torch.cholesky_solve(torch.from_numpy(wanted)[:, None], factor)[:, 0].numpy()
    y = c * v - transposed @ x
    return (torch.from_numpy(r * x).to(right[0]), torch.from_numpy(c * y).to(right[1])), next(iterations)
