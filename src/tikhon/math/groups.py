"""Finite groups as matrices: representations, and what of a linear map commutes with them."""

from __future__ import annotations

import torch
from torch import Tensor

from tikhon.core.errors import TikhonError

SAME = 1e-4  # entries of orthogonal matrices that differ by less are taken for equal
MOST = 256


def generated(matrices: Tensor) -> Tensor:
    """The group of all products of some invertible matrices, (N, d, d) -> (G, d, d), the identity first.

    Raises `TikhonError` where there are more than 256.

    >>> generated(torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])).shape
    torch.Size([4, 2, 2])
    """
    found = torch.eye(matrices.shape[1]).to(matrices)[None]
    place = 0
    while place < len(found):
        for product in found[place] @ matrices:
            if bool(((product - found).abs().amax((1, 2)) > SAME).all()):
                found = torch.cat([found, product[None]])
        place += 1
        if len(found) > MOST:
            raise TikhonError(f"These matrices generate a group of more than {MOST} elements, or none that is finite.")
    return found


def regular(elements: Tensor, group: Tensor) -> Tensor:
    """How elements of a finite group permute its elements, by multiplication from the left.

    elements: (E, d, d), of the group; group: (G, d, d), closed under products, no two equal. Returns (E, G, G): matrix
    e has a 1 where it takes element h of the group to the product e h. Raises `TikhonError` for what is no group.

    >>> sign = torch.tensor([[[1.0]], [[-1.0]]])
    >>> regular(sign, sign)[1]
    tensor([[0., 1.],
            [1., 0.]])
    """
    products = elements[:, None] @ group
    equal = (products[:, :, None] - group).abs().amax((-2, -1)) < SAME  # (E, G, G): product e h to element k
    if bool(equal.sum(-1).ne(1).any()):
        raise TikhonError(
            f"These {len(group)} matrices are no group: products of two of them must be one of them, and no two may be "
            "equal."
        )
    return equal.transpose(1, 2).contiguous().to(group.dtype)


def equivariant_part(weight: Tensor, outgoing: Tensor, ingoing: Tensor) -> Tensor:
    """The nearest map that commutes with a group: (1/G) sum_g rho_out(g) W rho_in(g)^-1.

    weight: (o, i); outgoing: (G, o, o), ingoing: (G, i, i), orthogonal representations of one group, in the same order.
    Returns (o, i); a projection. Source: Kim, Lee, Yang, Lee 2023, arXiv 2306.00356.

    >>> mirror = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    >>> equivariant_part(torch.tensor([[1.0, 0.0], [2.0, 5.0]]), mirror, mirror)
    tensor([[3., 1.],
            [1., 3.]])
    """
    return (outgoing @ weight @ ingoing.transpose(1, 2)).mean(0)


def copies(representation: Tensor, count: int) -> Tensor:
    """Blocks of the same representation along the diagonal: (G, d, d) -> (G, count d, count d).

    >>> copies(torch.tensor([[[2.0]]]), 2)
    tensor([[[2., 0.],
             [0., 2.]]])
    """
    return torch.kron(torch.eye(count).to(representation), representation)


def checked_symmetry(name: str, ingoing: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor]:
    """Copies of two orthogonal representations of one group, (G, i, i) and (G, o, o), in the same order.

    Raises `TikhonError`, which calls them `name`, where they are none. The matrices of the first must differ.
    """
    pair = ingoing, outgoing
    for one in pair:
        if not isinstance(one, Tensor) or one.ndim != 3 or one.shape[1] != one.shape[2] or len(one) != len(ingoing):
            raise TikhonError(f"{name!r} must be two tensors of as many matrices, (G, d, d) for inputs and outputs.")
    table = regular(ingoing, ingoing).argmax(1)  # (G, G): which element the product of two is
    for one in pair:
        if not torch.allclose(one @ one.transpose(1, 2), torch.eye(one.shape[1]).to(one), atol=1e-4):
            raise TikhonError(f"The matrices of {name!r} must be orthogonal.")
        if not torch.allclose(one[:, None] @ one, one[table], atol=1e-4):
            raise TikhonError(f"The output matrices of {name!r} must multiply as those of the inputs do.")
    return ingoing.detach().clone(), outgoing.detach().clone()
