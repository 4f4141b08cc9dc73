"""What several domains of a batch have in common and in what they differ."""

from __future__ import annotations

import torch
from torch import Tensor


def domain_means(values: Tensor, members: Tensor, mass: Tensor | None = None) -> Tensor:
    """The mean of the rows of each domain: (B, ...) -> (E, ...), 0 for a domain without rows.

    values: each row's, already times what it counts; members: (E, B), 1.0 where a row is of the domain; mass: (B,),
    what each row counts; None where each counts 1.

    >>> domain_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    tensor([2., 0.])
    """
    sizes = members.sum(1) if mass is None else members @ mass
    sums: Tensor = torch.tensordot(members, values, 1)
    return sums / sizes.where(sizes > 0, 1.0).reshape(-1, *[1] * (values.ndim - 1))


def mean_over(values: Tensor, present: Tensor) -> Tensor:
    """The mean over domains present: values (E, ...), present (E,), 1.0 or 0.0 -> (...).

    >>> mean_over(torch.tensor([1.0, 7.0, 3.0]), torch.tensor([1.0, 0.0, 1.0]))
    tensor(2.)
    """
    total: Tensor = torch.tensordot(present, values, 1)
    return total / present.sum().clamp_min(1.0)


def mismatch(values: Tensor, mean: Tensor, present: Tensor) -> Tensor:
    """The mean over domains present of ||v_e - v||^2.

    values: (E, P), one row a domain; mean: (P,), of all domains together; present: (E,), 1.0 for domains in
    the batch and 0.0 for others. Returns a scalar, at least 0.

    >>> mismatch(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([2.0, 0.0]), torch.ones(2))
    tensor(1.)
    """
    distances = (values - mean).square().sum(1)
    return (distances * present).sum() / present.sum().clamp_min(1.0)


def dispersion(values: Tensor, present: Tensor) -> Tensor:
    """The mean over pairs of domains present of ||v_e - v_f||^2, which is twice their variance over n - 1.

    values: (E, P), one row a domain; present: (E,), 1.0 or 0.0. Returns a scalar, at least 0; 0 for a single domain.

    >>> dispersion(torch.tensor([[1.0], [3.0], [99.0]]), torch.tensor([1.0, 1.0, 0.0]))
    tensor(4.)
    """
    count = present.sum()
    return 2.0 * count / (count - 1.0).clamp_min(1.0) * mismatch(values, mean_over(values, present), present)
