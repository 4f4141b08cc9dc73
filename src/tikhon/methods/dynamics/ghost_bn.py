"""Ghost batch normalisation: normalise a large batch in small chunks, each with its own statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method


def chunk_sizes(batch: int, size: int) -> list[tuple[int, int]]:
    """How a batch is cut: (how many chunks, of how many samples), the larger chunks first.

    There are batch // size chunks (at least one) that differ by at most one sample, as `torch.tensor_split` makes them:
    none is smaller than `size`, so that no chunk of a few samples is left over, whose statistics are noise.

    >>> chunk_sizes(70, 32), chunk_sizes(67, 32), chunk_sizes(20, 32)
    ([(2, 35)], [(1, 34), (1, 33)], [(1, 20)])
    """
    chunks = max(1, batch // size)
    small, larger = batch // chunks, batch % chunks
    return [(count, samples) for count, samples in ((larger, small + 1), (chunks - larger, small)) if count]


def normalised_chunks(
    inputs: Tensor, chunks: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation of equal chunks, each by its own mean and variance (Hoffer et al. 2017, arXiv 1705.08741).

        y = (x - mean_k) / sqrt(var_k + eps) * weight + bias

    inputs: (chunks * n, C, ...); weight, bias: (C,) or None; eps: positive. Returns the outputs, and the means and
    unbiased variances of the chunks, (chunks, C) each, without gradient.

    >>> outputs, means, _ = normalised_chunks(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), 2, None, None, 1e-12)
    >>> outputs.flatten(), means.flatten()
    (tensor([-1.,  1., -1.,  1.]), tensor([1., 6.]))
    """
    channels, rest = inputs.shape[1], inputs.shape[2:]
    # Chunks beside each other as further channels: then one fused operation normalises all of them.
    wide = inputs.unflatten(0, (chunks, -1)).transpose(0, 1).reshape(-1, chunks * channels, *rest)
    statistics = torch.promote_types(inputs.dtype, torch.float32) if weight is None else weight.dtype
    mean = torch.zeros(chunks * channels, dtype=statistics, device=inputs.device)
    variance = torch.ones_like(mean)
    scale, shift = (None if one is None else one.repeat(chunks) for one in (weight, bias))
    outputs = F.batch_norm(wide, mean, variance, scale, shift, True, 1.0, eps)
    outputs = outputs.reshape(-1, chunks, channels, *rest).transpose(0, 1).reshape(inputs.shape)
    return outputs, mean.reshape(chunks, channels), variance.reshape(chunks, channels)


def _forward(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    """Plain batch normalisation, but for a training batch of more than one chunk."""
    norm._check_input_dim(inputs)
    sizes = chunk_sizes(len(inputs), norm.ghost_size)  # type: ignore[arg-type]
    if not norm.training or sum(chunks for chunks, _ in sizes) == 1:
        return _BatchNorm.forward(norm, inputs)
    parts = inputs.split([chunks * samples for chunks, samples in sizes])
    found = [
        normalised_chunks(part, chunks, norm.weight, norm.bias, norm.eps)
        for part, (chunks, _) in zip(parts, sizes, strict=True)
    ]
    outputs, means, variances = (torch.cat(one) if len(found) > 1 else one[0] for one in zip(*found, strict=True))
    if norm.track_running_stats:
        _track(norm, means, variances)
    return outputs


@torch.no_grad()
def _track(norm: _BatchNorm, means: Tensor, variances: Tensor) -> None:
    """Move the running statistics as if the chunks had come one after another, as in the official code."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    chunks = len(means)
    norm.num_batches_tracked.add_(chunks)
    kept: float | Tensor
    if norm.momentum is None:  # the average over all chunks so far
        weights = (1.0 / norm.num_batches_tracked.to(means.dtype)).expand(chunks)
        kept = 1.0 - chunks * weights[0]
    else:
        later = torch.arange(chunks - 1, -1, -1, dtype=means.dtype, device=means.device)
        weights = norm.momentum * (1.0 - norm.momentum) ** later
        kept = (1.0 - norm.momentum) ** chunks
    for running, seen in ((norm.running_mean, means), (norm.running_var, variances)):
        running.mul_(kept).add_((weights[:, None] * seen).sum(0))


class Ghost1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` in chunks."""

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


class Ghost2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` in chunks."""

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


class Ghost3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d` in chunks."""

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


GHOSTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: Ghost1d,
    nn.BatchNorm2d: Ghost2d,
    nn.BatchNorm3d: Ghost3d,
}


class GhostBatchNorm(Method):
    """Normalise every chunk of a large batch by its own statistics, in every batch norm of the model.

    Use it with large batches, whose exact statistics take away the noise that regularises small ones. Not where batches
    are about as small as a chunk: there it is plain batch norm. Chunks follow the order of the batch: shuffle.

        y = (x - mean_k) / sqrt(var_k + eps) * weight + bias,   k the chunk of x

    size: samples a chunk, at least 2; 128 in the paper, for batches of 4096. A batch is cut into batch // size equal
    chunks, or equal but for one sample; below 2 * size it stays whole. Evaluation is plain batch norm: running
    statistics move with each chunk in turn, so with the same momentum they remember fewer batches. `nn.BatchNorm1d`,
    2d and 3d modules keep their tensors and their names; batch norm synchronised across processes is left as it is.

    Cost: two copies of what goes through each batch norm. Reference: Hoffer, Hubara, Soudry 2017, arXiv 1705.08741.

    >>> recipe = tikhon.Recipe(tikhon.GhostBatchNorm(size=32))
    """

    card = Card(
        title="Train longer, generalize better: closing the generalization gap in large batch training of neural "
        "networks",
        authors="Hoffer, Hubara, Soudry",
        year=2017,
        arxiv="1705.08741",
        problems=("overfitting", "speed", "stability"),
        formula=r"y = \gamma\,(x-\mu_k)/\sqrt{\sigma_k^2+\epsilon} + \beta,\quad k = \mathrm{chunk}(x)",
        claim="Reduces the generalisation gap of large batches without further updates.",
        helps="Batches many times as large as the ones that a learning rate and a network were tuned for.",
        hurts="Small chunks in deep networks, whose statistics then differ between training and evaluation.",
        cost="Two copies of the activations at each batch norm.",
        neutral="size=1000000",
        example="size=4",
    )
    slots = {"prepare": "replace", "export": "merge"}
    exempt = {
        "accumulation": "statistics are those of a chunk of the batch, as in batch norm itself",
        "permutation": "which samples share a chunk depends on their order in the batch",
    }

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise TikhonError(f"size must be an integer of at least 2, the samples in a chunk, not {size!r}.")
        self.size = size

    def check(self, model: nn.Module) -> None:
        if not any(type(module) in GHOSTS for module in model.modules()):
            raise TikhonError(
                f"{self.key} found no nn.BatchNorm1d, 2d or 3d in {type(model).__name__}: there is nothing to "
                "normalise in chunks. Leave the method out."
            )

    def prepare(self, model: nn.Module) -> None:
        for module in model.modules():
            ghost = GHOSTS.get(type(module))
            if ghost is not None:
                # The class and not the module: whatever else holds it, hooks and second names too, stays right.
                module.__class__ = ghost
                module.ghost_size = self.size  # type: ignore[assignment]

    def export(self, model: nn.Module) -> nn.Module:
        plain = {ghost: kind for kind, ghost in GHOSTS.items()}
        for module in model.modules():
            if type(module) in plain:
                module.__class__ = plain[type(module)]
                del module.ghost_size
        return model
