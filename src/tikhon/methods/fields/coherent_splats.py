"""Coherent splats: what belongs to neighbouring pixels moves together, because one small decoder makes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.export import merge_parametrization
from tikhon.core.method import Method
from tikhon.core.parameters import Where, check_parametrizable, select
from tikhon.core.step import Step, seed_for
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32


def masked_variation(x: Tensor, segments: Tensor | None = None) -> Tensor:
    """Mean of |x_p - x_q| over neighbours p, q, one below or beside the other, that lie in the same segment.

    x: (..., H, W); segments: integers that broadcast to x, None: all is one segment. Returns a scalar, at least 0; 0
    where no two neighbours share a segment.

    >>> masked_variation(torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0, 0, 1]]))
    tensor(1.)
    """
    steps = [x.diff(dim=axis) for axis in (-2, -1)]
    if segments is None:
        return torch.cat([one.abs().flatten() for one in steps]).sum() / max(sum(one.numel() for one in steps), 1)
    kept = [(segments.diff(dim=axis) == 0).expand_as(one) for axis, one in zip((-2, -1), steps, strict=True)]
    total = torch.stack([(one.abs() * keep).sum() for one, keep in zip(steps, kept, strict=True)]).sum()
    return total / torch.stack([keep.sum() for keep in kept]).sum().clamp_min(1)


def flow_difference(points: Tensor, others: Tensor, flow: Tensor) -> Tensor:
    """||X_i(p) - X_j(p + flow(p))||_1 at every pixel p of view i: one surface point must have one position.

    points: X_i (H, W, D), the position of what each pixel of view i shows; others: X_j (H', W', D), read between its
    pixels linearly; flow: (H, W, 2), where a pixel of i is found in j, as x and y in pixels. Returns (H, W), at least
    0, and 0 where the flow leaves view j.

    >>> points = torch.tensor([[[5.0], [6.0]]])
    >>> flow_difference(points, points, torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    tensor([[1., 0.]])
    """
    points, others, flow = (at_least_float32(one) for one in (points, others, flow))
    height, width = others.shape[:2]
    y, x = (torch.arange(n, dtype=flow.dtype, device=flow.device) for n in flow.shape[:2])
    found = torch.stack([x + flow[..., 0], y[:, None] + flow[..., 1]], dim=-1)
    last = torch.tensor([width - 1, height - 1], dtype=flow.dtype, device=flow.device)
    inside = ((found >= 0.0) & (found <= last)).all(-1)
    grid = 2.0 * found / last.clamp_min(1.0) - 1.0
    read = F.grid_sample(others.movedim(-1, 0)[None], grid[None], padding_mode="border", align_corners=True)
    return (points - read[0].movedim(0, -1)).abs().sum(-1) * inside


class Decoded(nn.Module):
    """A parametrization: maps (..., C, H, W) = those at the start + what a convolutional decoder makes of a code.

    Code, kernels and biases are one leaf (1, n), so that a weight has one name and one leaf. The decoder is shared by
    all leading axes (the views); the code has a map of its own for each, coarser by 2^levels. Its last layer is 0 at
    the start.
    """

    start: Tensor

    def __init__(self, weight: Tensor, levels: int, width: int, seed: int) -> None:
        super().__init__()
        plane = weight.shape[-2:]
        self.sizes = [[-(-side >> level) for side in plane] for level in reversed(range(levels))]
        views, channels = math.prod(weight.shape[:-3]), weight.shape[-3] if weight.ndim > 2 else 1
        coarse = [-(-side >> levels) for side in plane]
        self.shapes = [(views, width, *coarse), *[(width, width, 3, 3), (width,)] * levels]
        self.shapes += [(channels, width, 3, 3), (channels,)]
        generator = torch.Generator().manual_seed(seed)
        scales = [1.0, *[math.sqrt(2.0 / (9 * width)), 0.0] * levels, 0.0, 0.0]
        drawn = [
            scale * torch.randn(shape, generator=generator) for scale, shape in zip(scales, self.shapes, strict=True)
        ]
        self._leaf = torch.cat([one.flatten() for one in drawn])[None].to(weight)
        self.register_buffer("start", weight.detach().clone())

    def forward(self, leaf: Tensor) -> Tensor:
        parts = leaf[0].split([math.prod(one) for one in self.shapes])
        x, *layers = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        x = x.contiguous(memory_format=torch.channels_last)  # so few channels are convolved and interpolated faster
        for size, kernel, bias in zip(self.sizes, layers[:-2:2], layers[1:-2:2], strict=True):
            x = F.interpolate(F.relu(F.conv2d(x, kernel, bias, padding=1)), size, mode="bilinear")
        change = F.conv2d(x, layers[-2], layers[-1], padding=1)
        return self.start + change.reshape(self.start.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        # Asked for once, with the weight that it starts from.
        return self._leaf


class CoherentDecoderReg(Method):
    """Let a small convolutional decoder say how per-pixel parameters change, and hold their variation down.

    Use it where a scene is fitted to very few images by one primitive a pixel (Gaussian splats, say) and parameters
    that move one by one would fit the images and nothing between them. The parameters are maps (views, C, H, W), of
    depths or offsets, that start at a good guess such as aligned monocular depth: training moves the decoder's code and
    kernels in their place. Not for maps without spatial order, and not where the guess itself is rough: it stays.

        maps = start + decoder(code),   loss = task + strength mean_{p ~ q} |maps_p - maps_q|

    strength: of the variation, at least 0; segments: integers that broadcast to the maps, neighbours of different
    segments may differ freely (depth edges), None: one segment; where: which parameters, those of two or more
    dimensions by default; levels: doublings from the code's resolution to the maps'; width: channels of the decoder.
    Where views correspond by optical flow, add `flow_difference` of their points to the base loss.

    Every map must take part in each forward pass, of which the variation is taken.

    Cost: the decoder, once a forward pass. Nothing after export: the maps are plain parameters again.
    Reference: Paliwal, Ye, Xiong, Kotovenko, Ranjan, Chandra, Khademi Kalantari 2024, arXiv 2403.19495. Layout of the
    decoder and strength are ours: the paper's settings could not be consulted.

    >>> scene = nn.ParameterDict({"depth": nn.Parameter(torch.ones(3, 1, 24, 32))})
    >>> method = tikhon.CoherentDecoderReg(strength=0.01, where="depth")
    >>> recipe = tikhon.Recipe(method, base=torch.nn.functional.mse_loss)
    """

    card = Card(
        title="CoherentGS: Sparse Novel View Synthesis with Coherent 3D Gaussians",
        authors="Paliwal, Ye, Xiong, Kotovenko, Ranjan, Chandra, Khademi Kalantari",
        year=2024,
        arxiv="2403.19495",
        problems=("overfitting",),
        formula=r"d = d_0 + g_\phi(c),\quad L = L_{task} + \lambda\,\overline{|d_p-d_q|}",
        claim="Far better novel views from extremely few images, three for instance.",
        helps="Scenes of one primitive a pixel, fitted to few images, with a guess of depth to start from.",
        hurts="Maps without spatial order; detail finer than the decoder's.",
        cost="A small convolutional decoder once a forward pass.",
        neutral="",
    )
    slots = {"prepare": "parametrize", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights", "zero-keeping weights"})
    exempt = {"neutral": "a map that trains through a decoder does not train as itself"}

    segments: Tensor | None

    def __init__(
        self,
        strength: Strength = 0.01,
        segments: Tensor | None = None,
        where: Where = "weights",
        levels: int = 3,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        for name, count, least in (("levels", levels, 0), ("width", width, 1)):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise TikhonError(f"{name} must be a whole number, at least {least}, not {count!r}.")
        if segments is not None and segments.is_floating_point():
            raise TikhonError(f"segments must be integers, not {segments.dtype}: number them.")
        self.where, self.levels, self.width = where, levels, width
        self.register_buffer("segments", segments, persistent=False)
        self._places: list[str] = []  # of the decoders, from `prepare` on

    def check(self, model: nn.Module) -> None:
        chosen = select(model, self.where)
        check_parametrizable(model, chosen, self.key)
        for one in chosen:
            shape = tuple(one.leaf.shape)
            if len(shape) < 2:
                raise TikhonError(f"{self.key}: {one.name} of shape {shape} is no map (..., H, W): choose with where=.")
            if self.segments is not None and not _fits(tuple(self.segments.shape), shape):
                raise TikhonError(
                    f"{self.key}: segments of shape {tuple(self.segments.shape)} do not broadcast to {one.name} of "
                    f"shape {shape}."
                )

    def prepare(self, model: nn.Module) -> None:
        for one in select(model, self.where):
            decoder = Decoded(one.leaf.detach(), self.levels, self.width, seed_for(self.key, one.name))
            parametrize.register_parametrization(one.module, one.attribute, decoder)
            place = one.name.removesuffix(one.attribute)
            self._places.append(f"{place}parametrizations.{one.attribute}.0")

    def taps(self, model: nn.Module) -> Sequence[str]:
        return self._places

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        # Of the maps that the pass has made: the decoder is most of the cost, and as a penalty it would run once more.
        if step.value(self.strength) == 0.0:
            return {}
        maps = [step.tap(place).output for place in self._places]
        variation = torch.stack([masked_variation(one, self.segments) for one in maps]).mean()
        return {"variation": Term(variation, self.strength, per_sample=False)}

    def export(self, model: nn.Module) -> nn.Module:
        merge_parametrization(model, Decoded)
        return model


def _fits(segments: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether segments of this shape are of the maps' plane, and broadcast to the axes before it."""
    leading = zip(reversed(segments[:-2]), reversed(shape[:-2]), strict=False)
    return segments[-2:] == shape[-2:] and len(segments) <= len(shape) and all(one in (1, two) for one, two in leading)
