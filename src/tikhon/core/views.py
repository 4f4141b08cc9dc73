"""Views: two random augmentations of every sample in one batch, for learning without labels."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.math.precision import at_least_float32


def two_views(output: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """The features of both views, (B, D) each, from those of a batch of one view after the other, (2 * B, D).

    Raises `TikhonError`, in the name of `method`, where that is no such batch, or one of less than two samples.
    """
    if output.ndim != 2 or len(output) % 2 or len(output) < 4:
        raise TikhonError(
            f"{method} needs the features (2 * B, D) of two views of at least two samples, one after the other: "
            f"recipe.loss(torch.cat([view(x), view(x)])); the output is {tuple(output.shape)}."
        )
    one, other = at_least_float32(output).chunk(2)
    return one, other
