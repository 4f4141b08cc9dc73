"""Power laws with a floor: how a loss falls with steps, samples or parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.exponential import fitted_exponential

_LEAST, _MOST = 1e-3, 10.0


class PowerLaw(NamedTuple):
    """floor + scale * x^-exponent, each a scalar tensor."""

    floor: Tensor
    scale: Tensor
    exponent: Tensor

    def at(self, x: Tensor) -> Tensor:
        """The law's value at x > 0 of any shape."""
        return self.floor + self.scale * x**-self.exponent


def fitted_power_law(x: Tensor, loss: Tensor) -> PowerLaw:
    """The power law of least squares, with floor and scale at least 0 and an exponent between 0.001 and 10.

    x: (n,), positive and not all alike, n at least 3; loss: (n,). In log x it is an exponential, and found as one.
    Computed in float64, returned in the loss's type. Raises `TikhonError` where there is nothing to fit.

    >>> x = torch.tensor([1.0, 4.0, 16.0, 64.0])
    >>> law = fitted_power_law(x, 0.5 + 2.0 * x**-0.5)
    >>> [round(float(one), 4) for one in law]
    [0.5, 2.0, 0.5]
    """
    if x.ndim != 1 or x.shape != loss.shape or len(x) < 3:
        raise TikhonError(
            f"A power law needs at least three x and as many losses, not {tuple(x.shape)} and {tuple(loss.shape)}."
        )
    if not bool((x > 0).all()) or not bool((x != x[0]).any()) or not bool(loss.isfinite().all()):
        raise TikhonError("A power law needs positive x that are not all alike, and finite losses.")
    curve = fitted_exponential(x.double().log(), loss.double(), rising=False, rates=(_LEAST, _MOST))
    return PowerLaw(*(one.to(loss.dtype) for one in (curve.floor, curve.scale, curve.rate)))


def power_law_covariance(law: PowerLaw, x: Tensor, loss: Tensor) -> Tensor:
    """The covariance of floor, scale and exponent as fitted, (3, 3): s^2 (J^T J)^-1 of nonlinear least squares.

    x, loss: (n,) that the law was fitted to, n at least 4. J holds the law's derivatives, s^2 = squared error/(n - 3).
    It holds where errors are independent, alike and small; a parameter that lies on its bound is not known so well.

    >>> x = torch.tensor([1.0, 4.0, 16.0, 64.0], dtype=torch.float64)
    >>> loss = 0.5 + 2.0 * x**-0.5 + 0.01 * torch.tensor([1.0, -1.0, 1.0, -1.0])
    >>> power_law_covariance(fitted_power_law(x, loss), x, loss).diagonal().sqrt().round(decimals=3)
    tensor([0.0440, 0.0440, 0.0260], dtype=torch.float64)
    """
    if len(x) < 4:
        raise TikhonError(f"{len(x)} points leave nothing to judge the errors of three parameters by; 4 are needed.")
    derivatives = law_derivatives(law, x).double()
    variance = (loss - law.at(x)).double().square().sum() / (len(x) - 3)
    inverse: Tensor = torch.linalg.pinv(derivatives.T @ derivatives, hermitian=True)
    return (variance * inverse).to(loss.dtype)


def law_derivatives(law: PowerLaw, x: Tensor) -> Tensor:
    """The derivatives of the law's value at x by floor, scale and exponent; x: (n,), positive. Returns (n, 3).

    >>> law_derivatives(PowerLaw(*torch.tensor([0.5, 2.0, 1.0])), torch.tensor([1.0, 2.0]))
    tensor([[ 1.0000,  1.0000, -0.0000],
            [ 1.0000,  0.5000, -0.6931]])
    """
    power = x**-law.exponent
    return torch.stack([torch.ones_like(x), power, -law.scale * power * x.log()], dim=-1)
