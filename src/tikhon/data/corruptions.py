"""What can be wrong with data, as pure functions: wrong labels, rare classes, and inputs that shifted.

Nothing is changed in place, and every draw comes from the generator that is handed in.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.errors import TikhonError


def symmetric_noise(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Replace exactly round(rate * B) labels by a different class, each other class equally likely.

    labels: (B,) int64 in 0 .. classes - 1. rate: the share of labels that end up wrong, in [0, 1].
    """
    chosen = _choose(labels, rate, classes, generator)
    offset = torch.randint(1, classes, (len(chosen),), generator=generator)
    return _relabel(labels, chosen, offset, classes)


def asymmetric_noise(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Replace exactly round(rate * B) labels by the next class: c becomes c + 1 modulo `classes`.

    labels: (B,) int64 in 0 .. classes - 1. rate: the share of labels that end up wrong, in [0, 1].
    """
    chosen = _choose(labels, rate, classes, generator)
    return _relabel(labels, chosen, torch.ones_like(chosen), classes)


def value_noise(values: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `scale` (D,) or () to values (B, D) or (B,)."""
    return values + scale * torch.randn(values.shape, generator=generator)


def imbalance(labels: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Indices (n,), sorted, of the samples to keep for a long tail: class sizes n_0 * ratio ** (-c / (K - 1)).

    Class 0 is the most frequent, the last class the least, `ratio` (>= 1) times rarer; n_0 is the largest size for
    which every class has enough samples. Cui et al., "Class-balanced loss", 2019, arXiv 1901.05555, section 5.1.
    """
    if not (math.isfinite(ratio) and ratio >= 1):
        raise TikhonError(f"the imbalance is most frequent : least frequent class, at least 1; got {ratio}")
    counts = torch.bincount(labels)
    profile = float(ratio) ** (-torch.linspace(0, 1, len(counts), dtype=torch.float64))
    most = float((counts / profile).min().floor())
    sizes = (most * profile).round().long()
    if sizes.min() < 1:
        raise TikhonError(
            f"an imbalance of {ratio:g} leaves no sample of the rarest class: the most frequent class has {most:.0f} "
            f"samples, so at most {most:.0f} is possible"
        )
    kept = []
    for label, size in enumerate(sizes.tolist()):
        members = (labels == label).nonzero().flatten()
        kept.append(members[torch.randperm(len(members), generator=generator)[:size]])
    return torch.cat(kept).sort().values


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn images (B, C, H, W) counter-clockwise around their centre; bilinear, zero where nothing was before."""
    height, width = images.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid works in coordinates from -1 to 1 along either side: without the ratios an oblong image would shear.
    matrix = images.new_tensor([[cos, -sin * height / width, 0], [sin * width / height, cos, 0]])
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def gaussian_noise(inputs: Tensor, scale: float | Tensor, generator: torch.Generator) -> Tensor:
    """Add independent Gaussian noise of standard deviation `scale` (a number, or one for each feature) to (B, ...)."""
    return inputs + scale * torch.randn(inputs.shape, generator=generator)


def blur(inputs: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of images (B, C, H, W) or signals (B, C, L); sigma in pixels or points, edges are repeated."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=inputs.dtype) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for axis in range(2, inputs.ndim):  # a Gaussian is separable: one pass along each axis
        moved = inputs.movedim(axis, -1)
        rows = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (radius, radius), mode="replicate")
        inputs = F.conv1d(rows, kernel).view(moved.shape).movedim(-1, axis)
    return inputs.contiguous()


def _choose(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    if not 0 <= rate <= 1:
        raise TikhonError(f"the share of noisy labels must lie in [0, 1]; got {rate}")
    if classes < 2:
        raise TikhonError(f"label noise needs at least two classes; got {classes}")
    return torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]


def _relabel(labels: Tensor, chosen: Tensor, offset: Tensor, classes: int) -> Tensor:
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + offset) % classes
    return noisy
