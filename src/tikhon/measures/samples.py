"""Two sets of samples as measures take them: of one shape, in double precision and on the CPU."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.errors import TikhonError


def refuse_unlike(train: Tensor, test: Tensor) -> None:
    """A `TikhonError` unless these are (N, ...) and (M, ...) of samples of one shape, neither of them empty."""
    if min(train.ndim, test.ndim) < 2 or train.shape[1:] != test.shape[1:] or not (train.numel() and test.numel()):
        raise TikhonError(
            f"train and test must be (N, ...) and (M, ...) of samples of one shape, not {tuple(train.shape)} and "
            f"{tuple(test.shape)}."
        )


def checked_samples(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both as rows of finite numbers, (N, D) and (M, D) float64 on the CPU; otherwise a `TikhonError`."""
    refuse_unlike(train, test)
    a, b = (one.detach().cpu().flatten(1).double() for one in (train, test))
    if not bool(a.isfinite().all() & b.isfinite().all()):
        raise TikhonError("train or test holds NaN or infinity: fill in or leave out these samples first.")
    return a, b
