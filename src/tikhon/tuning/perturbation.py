"""Hyperparameters as one vector of real numbers: where it stands, how it is perturbed, and how it moves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError


class Hyperparameters(nn.Module):
    """Where the unconstrained hyperparameters stand, how far they are perturbed, and at which of them layers compute.

    origin: (H,), where they start; spread: of the perturbations at first; entropy: the weight of their entropy, None to
    keep the spread; learning_rate: of Adam, which moves both. Layers see distances from the origin, which changes none
    of the functions that they can learn: an affine response has no origin. At the start, then, a layer is the plain
    one.
    """

    origin: Tensor

    def __init__(self, origin: Tensor, spread: float, entropy: float | None, learning_rate: float) -> None:
        super().__init__()
        for name, number in (("spread", spread), ("learning_rate", learning_rate), ("entropy", entropy)):
            if number is not None and not 0.0 < number < math.inf:
                raise TikhonError(f"{name} must be positive and finite, not {number!r}.")
        self.register_buffer("origin", origin)
        self.value = nn.Parameter(origin.clone())
        self.raw_spread = nn.Parameter(torch.full_like(origin, spread).expm1().log())
        self.entropy = entropy
        self._optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        self._drawn: list[Tensor] = []  # not an attribute of its own: torch would register a parameter

    @property
    def spread(self) -> Tensor:
        """sigma, the standard deviations of the perturbations, (H,)."""
        return F.softplus(self.raw_spread)

    def perturbed(self, rows: int, generator: torch.Generator) -> Tensor:
        """lambda + sigma epsilon, epsilon ~ N(0, 1) for every row, (rows, H)."""
        noise = torch.randn(rows, len(self.value), generator=generator, device=self.value.device)
        return self.value + self.spread * noise.to(self.value.dtype)

    @property
    def offset(self) -> Tensor:
        """What layers respond to: (B, H) inside `at`, otherwise (H,)."""
        return (self._drawn[-1] if self._drawn else self.value.detach()) - self.origin

    @contextmanager
    def at(self, drawn: Tensor) -> Iterator[None]:
        """Inside, layers compute at these hyperparameters, (B, H) or (H,), rather than at the current ones."""
        self._drawn.append(drawn)
        try:
            yield
        finally:
            self._drawn.pop()

    def move(self, loss: Tensor) -> None:
        """One step down the gradient of a validation loss, less the entropy of the perturbations; nothing else has one.

        H = sum log sigma and a constant.
        """
        objective = loss if self.entropy is None else loss - self.entropy * self.spread.log().sum()
        moved = [self.value] if self.entropy is None else [self.value, self.raw_spread]
        for one, gradient in zip(moved, torch.autograd.grad(objective, moved), strict=True):
            one.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state)


def refuse_foreign(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse the state of another self-tuning network before any of it is loaded: torch would load what fits."""
    shapes, others = ({name: getattr(one, "shape", None) for name, one in state.items()} for state in (own, given))
    names = [one for one in {**own, **given} if one not in own or one not in given or shapes[one] != others[one]]
    extra, theirs = own["_extra_state"], given.get("_extra_state", {})
    names += [one for one in ("seed", "names") if extra[one] != theirs.get(one)]
    if names:
        raise TikhonError(f"This state is of another network: {names[0]} differs. Make an equal one, then load it.")
