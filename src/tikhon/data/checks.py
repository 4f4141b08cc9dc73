"""From whatever the user has to tensors that can be trusted, or an error that says what is wrong with them."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tikhon.core.errors import TikhonError
from tikhon.data.task import Split


def to_split(inputs: Any, target: Any, where: str) -> Split:
    """Check and convert one pair.

    inputs: (B, ...) numbers, become float32. target: (B,) integers, become int64 labels; (B,) or (B, D) floating
    numbers, become float32 values. Both are copied. where: how errors name the pair.
    """
    x = _numbers(inputs, f"the inputs of {where}").to(torch.float32, copy=True)
    y = _numbers(target, f"the target of {where}")
    y = y.to(torch.float32 if y.is_floating_point() else torch.int64, copy=True)
    if x.ndim < 2:
        raise TikhonError(f"the inputs of {where} have shape {tuple(x.shape)}; expected (samples, features, ...)")
    if y.ndim == 0 or y.ndim > 2 or (y.ndim == 2 and not y.is_floating_point()):
        expected = "(samples,) or (samples, values)" if y.is_floating_point() else "(samples,) for integer labels"
        raise TikhonError(f"the target of {where} has shape {tuple(y.shape)}; expected {expected}")
    if len(x) != len(y):
        raise TikhonError(f"{where} has {len(x)} inputs but {len(y)} targets; there must be one target for each input")
    if x.numel() == 0 or y.numel() == 0:
        raise TikhonError(f"{where} is empty: inputs {tuple(x.shape)}, target {tuple(y.shape)}")
    _refuse_non_finite(x, f"the inputs of {where}")
    if y.is_floating_point():
        _refuse_non_finite(y, f"the target of {where}")
    elif y.min() < 0:
        raise TikhonError(f"the labels of {where} must be 0, 1, 2, ...; found {int(y.min())}")
    return Split(x, y)


def kind_of(train: Split, where: str) -> tuple[Literal["classes", "values"], int | None]:
    """What kind of task the training samples make, and how many classes there are.

    Integer labels must be 0 .. K - 1, each present, with K >= 2; values must not all be the same.
    """
    if train.target.is_floating_point():
        if bool((train.target == train.target[0]).all()):
            raise TikhonError(f"the target of {where} is the same for every sample: there is nothing to learn")
        return "values", None
    present = torch.tensor(sorted(set(train.target.tolist())))
    classes = int(present[-1]) + 1
    if len(present) == 1:
        raise TikhonError(f"{where} holds one class only (label {classes - 1}); classification needs at least two")
    if len(present) < classes:
        gap = int((present != torch.arange(len(present))).nonzero()[0])
        raise TikhonError(
            f"the labels of {where} have gaps: there are {len(present)} different labels up to {classes - 1} but "
            f"label {gap} is missing; renumber them 0 .. {len(present) - 1}"
        )
    return "classes", classes


def refuse_mismatch(train: Split, other: Split, classes: int | None, where: str) -> None:
    """Another split must look like the training split: same shapes, same kind of target, no unseen label."""
    if other.inputs.shape[1:] != train.inputs.shape[1:]:
        raise TikhonError(
            f"the inputs of {where} have shape {tuple(other.inputs.shape[1:])} a sample, "
            f"those of training {tuple(train.inputs.shape[1:])}"
        )
    if other.target.dtype != train.target.dtype or other.target.shape[1:] != train.target.shape[1:]:
        raise TikhonError(f"the target of {where} must have the same type and shape a sample as the training target")
    if classes is not None and int(other.target.max()) >= classes:
        raise TikhonError(f"{where} holds label {int(other.target.max())}, training only 0 .. {classes - 1}")


def _numbers(values: Any, where: str) -> Tensor:
    if isinstance(values, Tensor):
        if values.is_complex() or values.dtype == torch.bool:
            raise TikhonError(f"{where}: expected integers or floating numbers, found {values.dtype}")
        return values.detach().cpu()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TikhonError(f"{where}: not a rectangular array ({error})") from error
    if array.dtype.kind not in "iuf":
        raise TikhonError(f"{where}: expected integers or floating numbers, found {array.dtype}")
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite and is refused by name later
        return torch.from_numpy(np.array(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64))


def _refuse_non_finite(values: Tensor, where: str) -> None:
    bad = ~values.isfinite().flatten(1).all(1) if values.ndim > 1 else ~values.isfinite()
    if bool(bad.any()):
        raise TikhonError(
            f"{where}: NaN or infinite in {int(bad.sum())} of {len(values)} samples, first in sample "
            f"{int(bad.nonzero()[0])}; remove these samples or fill in the values"
        )
