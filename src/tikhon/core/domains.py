"""Domains: where each training sample comes from, and what a batch holds of each domain."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.errors import TikhonError
from tikhon.core.features import check_place, place_of, rows_before
from tikhon.core.losses import Loss, weighted_losses
from tikhon.core.method import Need
from tikhon.core.pool import Dataset, Pool
from tikhon.core.step import Step
from tikhon.core.target import Target
from tikhon.math.domains import domain_means


class Domains(nn.Module):
    """The domain of every training sample: the caller's data, given again on resume, not a method's state.

    domains: (samples,), integers from 0; method: who asks, for errors. Under mixing a row is of its own sample's
    domain.
    """

    def __init__(self, domains: Tensor, method: str) -> None:
        super().__init__()
        if not isinstance(domains, Tensor) or domains.ndim != 1 or domains.is_floating_point() or not len(domains):
            raise TikhonError("domains must be a tensor (samples,) of integers, the domain of every training sample.")
        if int(domains.min()) < 0:
            raise TikhonError(f"Domains are counted from 0; there is one of {int(domains.min())}.")
        self.method, self.count = method, int(domains.max()) + 1
        self.of: Tensor
        self.register_buffer("of", domains.long(), persistent=False)

    def of_rows(self, target: Target) -> Tensor:
        """The domain of every row of the batch, (B,)."""
        assert target.ids is not None, "the recipe refuses methods that need sample ids before this"
        if target.ids.device.type == "cpu" and int(target.ids.max()) >= len(self.of):
            raise TikhonError(f"{self.method} knows the domains of {len(self.of)} samples, and one is beyond them.")
        return self.of[target.ids]

    def members(self, target: Target, like: Tensor) -> Tensor:
        """Which rows are of which domain, (E, B), 1.0 or 0.0 in the type of `like`."""
        return F.one_hot(self.of_rows(target), self.count).T.to(like.dtype)

    def risks(self, loss: Loss, output: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """The mean loss of each domain, (E,), 0 where the batch holds none of it; and 1.0 where it does, else 0.0."""
        losses, mass = weighted_losses(loss, output, target)
        mass = None if mass is None else mass.to(losses.dtype)
        members = self.members(target, losses)
        present = members.sum(1) if mass is None else members @ mass
        return domain_means(losses, members, mass), (present > 0).to(losses.dtype)


class ComparedFeatures(nn.Module):
    """Features of several domains side by side: of the batch's own domains, or of the batch and of unlabelled inputs.

    domains: of every training sample; unlabelled: inputs of one more domain, of which as many as the batch has rows are
    drawn for every batch and take a pass of their own; at: the module whose input they are, by default the last
    `nn.Linear`. Raises `TikhonError` unless exactly one of domains and unlabelled is given.
    """

    def __init__(
        self, domains: Tensor | None, unlabelled: Tensor | Dataset | None, at: str | None, method: str
    ) -> None:
        super().__init__()
        if (domains is None) == (unlabelled is None):
            raise TikhonError(
                f"{method} compares domains: give domains=, the domain of every training sample, or unlabelled=, "
                "inputs of the domain to adapt to; one of them."
            )
        self.method, self.at = method, at
        self.domains = None if domains is None else Domains(domains, method)
        self.pool = None if unlabelled is None else Pool(unlabelled, method)
        self.count = 2 if self.domains is None else self.domains.count

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset() if self.domains is None else frozenset({"ids"})

    def check(self, model: nn.Module, linear: bool = False) -> None:
        """Refuse a model that has no such module."""
        check_place(model, self.at, self.method, linear)

    def place(self, model: nn.Module) -> str:
        """The name of the module to tap."""
        return place_of(model, self.at, self.method)

    def read(self, output: Tensor, target: Target, step: Step) -> tuple[Tensor, Tensor]:
        """The features, (N, D), and which are of which domain, (E, N); unlabelled ones come last, of domain 1."""
        place = self.place(step.model)
        own = rows_before(step.tap(place).input, len(output), self.method)
        if self.domains is not None:
            return own, self.domains.members(target, own)
        assert self.pool is not None
        _, features = step.forward_with_taps(self.pool.draw(len(output), step, output.device))
        other = rows_before(features[place].input, len(output), self.method)
        members = torch.eye(2, dtype=own.dtype, device=own.device).repeat_interleave(len(own), dim=1)
        return torch.cat([own, other]), members
