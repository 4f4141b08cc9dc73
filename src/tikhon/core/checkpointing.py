"""Gradient checkpointing: torch's older, reentrant kind hides its inside from autograd, and what that would break."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction

from tikhon.core.errors import TikhonError


def refuse_features_without_gradient(name: str) -> None:
    """Inside a reentrant checkpoint a tap sees features without gradient: a term on them would do nothing, silently."""
    frame = None if torch.compiler.is_compiling() else inspect.currentframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            raise TikhonError(
                f"The tap on {name!r} lies in a reentrant checkpoint, where features have no gradient: checkpoint with "
                "use_reentrant=False."
            )
        frame = frame.f_back


def refuse_hidden_parameters(loss: Tensor, method: str) -> None:
    """`torch.autograd.grad` finds no gradient of parameters in a reentrant checkpoint, and not always says so."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            raise TikhonError(
                f"{method} needs gradients within the step, and a reentrant checkpoint hides them: checkpoint with "
                "use_reentrant=False."
            )
        waiting += [before for before, _ in node.next_functions]
