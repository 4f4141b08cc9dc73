"""Stochastically subsampled self-attention: while training, every query sees a random part of the sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.batches import call
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError

__all__ = [
    "SubsampledAttention",
    "local_order",
    "random_sources",
    "subsampled_attention",
    "subsampled_outputs",
    "windowed_attention",
]

card = Card(
    title="The Information Pathways Hypothesis: Transformers are Dynamic Self-Ensembles",
    authors="Hussain, Zaki, Subramanian",
    year=2023,
    arxiv="2306.01705",
    problems=("overfitting", "speed"),
    formula=r"\mathrm{softmax}(Q K_S^\top/\sqrt d)\,V_S,\quad S \text{ random},\ |S| = rN",
    claim="Self-attention at a quarter to an eighth of the cost in training, and better generalisation than dense.",
    helps="Long sequences, few data; an ensemble from one network, by several subsampled passes.",
    hurts="Short sequences, and tasks that hang on one certain token.",
    cost="The share r of the memory and arithmetic of attention; dense again at evaluation.",
    neutral="keep=1",
    kind="block",
)


def random_sources(length: int, kept: int, device: torch.device | None = None) -> Tensor:
    """`kept` different places of a sequence, each subset as likely as any other, (kept,), by the global generator.

    >>> random_sources(5, 3).unique().numel()
    3
    """
    return torch.randperm(length, device=device)[:kept]


def local_order(length: int, spread: float, device: torch.device | None = None) -> Tensor:
    """The places of a sequence shuffled among neighbours, (length,): sorted by place plus normal noise.

    spread: standard deviation of the noise in tokens, at least 0; by the global generator.

    >>> local_order(4, 0.0)
    tensor([0, 1, 2, 3])
    """
    places = torch.arange(length, device=device)
    return (places + spread * torch.randn(length, device=device)).argsort()


def subsampled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sources: Tensor | None,
    causal: bool = False,
    padding: Tensor | None = None,
) -> Tensor:
    """softmax(q k_S^T / sqrt(D)) v_S: every query attends to the same part of the sequence (Hussain et al. 2023).

    query, key, value: (B, H, N, D); sources: (k,), the places S that are seen, None for all; causal: none after the
    query's own; padding: (B, N), True where there is no token. Returns (B, H, N, D), 0 for a query that sees nothing.
    Source: arXiv 2306.01705, the unbiased form.
    """
    if sources is None:
        sources = torch.arange(query.shape[2], device=query.device)
    else:
        key, value = key[:, :, sources], value[:, :, sources]
    allowed = None
    if causal:
        allowed = sources <= torch.arange(query.shape[2], device=query.device)[:, None]
    if padding is not None:
        tokens = ~padding[:, None, None, sources]
        allowed = tokens if allowed is None else allowed & tokens
    return _attended(query, key, value, allowed)


def windowed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    order: Tensor,
    window: int,
    causal: bool = False,
    padding: Tensor | None = None,
) -> Tensor:
    """Attention inside windows of the sequence whose sources were shuffled: the locally biased form of the above.

    query, key, value: (B, H, N, D); order: (N,), a permutation of the places, `local_order`; window: how many queries,
    one after another, attend to the sources that the order puts into their places; causal, padding: as above. The last
    window is smaller where N is no multiple. Returns (B, H, N, D), 0 for a query that sees nothing.
    """
    length = query.shape[2]
    missing = -length % window
    places = torch.arange(length + missing, device=query.device).reshape(-1, window)
    real = places < length
    order = F.pad(order, (0, missing))

    def split(values: Tensor) -> Tensor:
        """(B, H, N + missing, D) -> (B, H, windows, window, D)."""
        return values.unflatten(2, (-1, window))  # type: ignore[no-any-return]

    sources = order.reshape(-1, window)
    allowed = real[:, None, :].expand(-1, window, -1)
    if causal:
        allowed = allowed & (sources[:, None, :] <= places[:, :, None])
    if padding is not None:
        allowed = allowed & ~padding[:, sources][:, None, :, None, :]
    blocks = _attended(
        split(F.pad(query, (0, 0, 0, missing))), split(key[:, :, order]), split(value[:, :, order]), allowed
    )
    return blocks.flatten(2, 3)[:, :, :length]


def _attended(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    if allowed is None:
        return F.scaled_dot_product_attention(query, key, value)
    # A softmax over nothing is 0 / 0: there everything is allowed, and the result is thrown away.
    seen = allowed.any(-1, keepdim=True)
    return F.scaled_dot_product_attention(query, key, value, allowed | ~seen) * seen


class SubsampledAttention(nn.Module):
    """Multi-head self-attention that sees a random part of the sequence in training, and all of it afterwards.

    Use it in place of dense self-attention where sequences are long and data few. For the last few per cent of the
    steps set `keep` of every such block among `model.modules()` to 1, so that the dense network is what was trained
    last. Evaluation is dense; several subsampled passes form an ensemble (`subsampled_outputs`).

    size: width E; heads: a divisor of it; keep: which part of the sequence is seen, in (0, 1], 1/4 to 1/8 in the paper;
    every pass and every layer draws its own, the same for all sequences, heads and queries; spread: None for all parts
    alike, or a distance in tokens: then each window of the sequence sees sources shuffled so far (the paper's locally
    biased form, better where neighbours matter); causal: whether a token may see those after it.

    Draws come from torch's global generator, as those of `nn.Dropout` do. Input (B, N, E), output the same; padding:
    (B, N), True where there is no token. Cost: `keep` of the scores and their softmax.
    Reference: Hussain, Zaki, Subramanian 2023, arXiv 2306.01705.

    >>> import torch, tikhon
    >>> attention = tikhon.SubsampledAttention(32, heads=4, keep=0.25)
    >>> attention(torch.zeros(2, 16, 32)).shape
    torch.Size([2, 16, 32])
    """

    def __init__(
        self, size: int, heads: int = 1, keep: float = 0.25, spread: float | None = None, causal: bool = False
    ) -> None:
        super().__init__()
        if heads < 1 or size < 1 or size % heads:
            raise TikhonError(f"size must be a multiple of heads, both positive; got {size} and {heads}.")
        if not 0.0 < keep <= 1.0:
            raise TikhonError(f"keep must be in (0, 1], the part of the sequence that is seen, not {keep}.")
        if spread is not None and not spread >= 0.0:
            raise TikhonError(f"spread must be at least 0 tokens, or None for no locality, not {spread}.")
        self.heads, self.keep, self.spread, self.causal = heads, keep, spread, causal
        self.sampling: bool | None = None
        """Whether to subsample; None means while training."""
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)

    def forward(self, inputs: Tensor, padding: Tensor | None = None) -> Tensor:
        query, key, value = self.qkv(inputs).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        length, device = inputs.shape[1], inputs.device
        kept = max(1, round(self.keep * length))
        sampling = self.training if self.sampling is None else self.sampling
        if not sampling or kept == length:
            attended = subsampled_attention(query, key, value, None, self.causal, padding)
        elif self.spread is None:
            sources = random_sources(length, kept, device)
            attended = subsampled_attention(query, key, value, sources, self.causal, padding)
        else:
            order = local_order(length, self.spread, device)
            attended = windowed_attention(query, key, value, order, kept, self.causal, padding)
        return self.out(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@torch.no_grad()
def subsampled_outputs(model: nn.Module, inputs: Any, passes: int = 8) -> Tensor:
    """The outputs of several subsampled passes, (passes, ...): the members of the ensemble that a network contains.

    model: in eval mode, with at least one `SubsampledAttention`; inputs: a batch as the model takes it; passes: how
    many, at least 1. Average what you predict from them: `subsampled_outputs(model, x).softmax(-1).mean(0)`.
    """
    blocks = [module for module in model.modules() if isinstance(module, SubsampledAttention)]
    if not blocks:
        raise TikhonError(f"{type(model).__name__} has no SubsampledAttention: its passes would all be the same.")
    if passes < 1:
        raise TikhonError(f"An ensemble needs at least one pass, not {passes}.")
    if model.training:
        raise TikhonError("subsampled_outputs needs the model in eval mode: call model.eval() before.")
    before = [block.sampling for block in blocks]
    try:
        for block in blocks:
            block.sampling = True
        return torch.stack([call(model, inputs) for _ in range(passes)])
    finally:
        for block, sampling in zip(blocks, before, strict=True):
            block.sampling = sampling
