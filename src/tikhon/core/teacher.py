"""Teachers that are the model itself with other weights: what would it answer?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from tikhon.core.passes import eval_mode
from tikhon.core.step import Step


@torch.no_grad()
def answer_with(tensors: Mapping[str, Tensor], inputs: Any, step: Step) -> Tensor:
    """The prediction of the prepared model in eval mode with these parameters and buffers in place of its own.

    tensors: by the names of `named_parameters` and `named_buffers`; what is not among them is the model's own. The
    model is the one that trains, with all surgery, so that no copy of its structure is kept; nothing of it is changed.
    """

    def called(*args: Any, **kwargs: Any) -> Any:
        return functional_call(step.model, dict(tensors), args, kwargs)

    with step.whole(), eval_mode(step.model):
        return step.output(called, inputs)
