"""Latent quantisation: every latent takes one of a few learned values, which it shares with no other latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.strength import checked

__all__ = ["LatentQuantizer", "nearest", "quantized", "straight_through", "quantization_errors"]

card = Card(
    title="Disentanglement via Latent Quantization",
    authors="Hsu, Dorrell, Whittington, Wu, Finn",
    year=2023,
    arxiv="2305.18378",
    problems=("overfitting",),
    formula=r"\hat z_d = z_d + \mathrm{sg}(q_d - z_d),\quad q_d = \arg\min_{v\in V_d}|z_d - v|",
    claim="With strong weight decay, latents that stand for one source each more than those of other auto-encoders do, "
    "at no worse reconstruction.",
    helps="Auto-encoders and generative models of data that a few independent sources vary; reading what a latent is.",
    hurts="Sources that are rotated into one another without harm; without strong weight decay.",
    cost="A comparison of every latent with each of its values.",
    neutral="",
    kind="block",
)


def nearest(z: Tensor, values: Tensor) -> Tensor:
    """Which of its values every latent is nearest to, the first of equally near ones.

    z: (..., D); values: (D, V), row d holds those of latent d. Returns (..., D), int64 in [0, V).

    >>> nearest(torch.tensor([[0.1, 0.1]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    tensor([[0, 1]])
    """
    return (z[..., None] - values).abs().argmin(-1)


def quantized(z: Tensor, values: Tensor) -> Tensor:
    """The nearest value q_d in V_d of every latent; its gradient goes to `values` alone. Shapes as in `nearest`.

    >>> quantized(torch.tensor([[0.4, 0.4]]), torch.tensor([[0.0, 1.0], [-1.0, 0.5]]))
    tensor([[0.0000, 0.5000]])
    """
    return values[torch.arange(len(values), device=values.device), nearest(z, values)]


def straight_through(z: Tensor, values: Tensor) -> Tensor:
    """The nearest value of every latent, with the gradient of z: z + sg(q - z). Shapes as in `nearest`."""
    return z + (quantized(z, values) - z).detach()


def quantization_errors(z: Tensor, values: Tensor, quantize: float = 0.01, commit: float = 0.01) -> Tensor:
    """What draws values to latents and latents to values (Hsu et al. 2023, arXiv 2305.18378).

        quantize mean_d (sg(z_d) - q_d)^2 + commit mean_d (z_d - sg(q_d))^2

    z: (..., D); values: (D, V). Returns (...), at least 0. The mean over latents is the official code's.

    >>> quantization_errors(torch.tensor([[0.4]]), torch.tensor([[0.0, 1.0]]), quantize=1.0, commit=0.5)
    tensor([0.2400])
    """
    q = quantized(z, values)
    return quantize * (z.detach() - q).square().mean(-1) + commit * (z - q.detach()).square().mean(-1)


class LatentQuantizer(nn.Module):
    """Between encoder and decoder: each latent snaps to the nearest of its own few values.

    Use it to learn latents that stand for one source of the data each, and read out what they stand for. A decoder that
    sees few distinct values a latent, and is held back by strong weight decay, gives each value one meaning. The decay
    is half of the method: `torch.optim.AdamW` with 0.1 and more on the weights of encoder and decoder, none on biases
    and on the values here. Give it twice as many latents as there may be sources. Not for latents that must hold fine
    detail.

    latents: D; values: V, how many each latent has, 10 in the paper, evenly spaced in [-0.5, 0.5] at first and learned;
    quantize, commit: the weights in `penalty`, at least 0. The block maps z (..., D) to (..., D), with the gradient
    passed straight through; add `penalty(z)` to the loss of every sample. `indices(z)` is the discrete code.

    Cost: a comparison of every latent with each of its values.
    Reference: Hsu, Dorrell, Whittington, Wu, Finn 2023, arXiv 2305.18378.

    >>> encoder, decoder = torch.nn.Linear(8, 4), torch.nn.Linear(4, 8)
    >>> quantizer = tikhon.LatentQuantizer(latents=4)
    >>> x = torch.randn(16, 8)
    >>> z = encoder(x)
    >>> errors = (decoder(quantizer(z)) - x).square().mean(1)
    >>> loss = (errors + quantizer.penalty(z)).mean()
    """

    def __init__(self, latents: int, values: int = 10, quantize: float = 0.01, commit: float = 0.01) -> None:
        super().__init__()
        for name, count, least in (("latents", latents, 1), ("values", values, 2)):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise TikhonError(f"{name} must be a whole number, at least {least}, not {count!r}.")
        for name, weight in (("quantize", quantize), ("commit", commit)):
            checked(name, weight, low=0.0)
        self.quantize, self.commit = quantize, commit
        self.values = nn.Parameter(torch.linspace(-0.5, 0.5, values).repeat(latents, 1))

    def forward(self, z: Tensor) -> Tensor:
        self._refuse(z)
        return straight_through(z, self.values)

    def penalty(self, z: Tensor) -> Tensor:
        """The addend of every sample's loss, (..., D) -> (...): what `forward` got, not what it gave."""
        self._refuse(z)
        return quantization_errors(z, self.values, self.quantize, self.commit)

    def indices(self, z: Tensor) -> Tensor:
        """The discrete code, (..., D) -> (..., D), int64: which of its values each latent takes."""
        self._refuse(z)
        return nearest(z, self.values)

    def extra_repr(self) -> str:
        return f"latents={self.values.shape[0]}, values={self.values.shape[1]}"

    def _refuse(self, z: Tensor) -> None:
        if z.ndim < 1 or z.shape[-1] != len(self.values):
            raise TikhonError(f"{len(self.values)} latents in the last axis are needed, not shape {tuple(z.shape)}.")
