"""Generative kernel replay: a classifier without weights, on a support that a generative model remembers."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.step import seed_for
from tikhon.math.kernels import fourier_features, kernel_ridge
from tikhon.math.variational import gaussian_divergence, supervised_contrast

__all__ = ["GenerativeKernelReplay", "ConditionalVAE"]

card = Card(
    title="Generative Kernel Continual Learning",
    authors="Derakhshani, Zhen, Shao, Snoek",
    year=2021,
    arxiv="2112.13410",
    problems=("forgetting", "privacy"),
    formula=r"\hat y = Y(\lambda I + K)^{-1} k(x),\quad (X, Y) \sim p_\theta(x \mid z, y)\,p(z \mid y)",
    claim="With a linear kernel as good on SplitCIFAR100 as a kernel with a stored support of ten times the memory, or "
    "10.1% better with equal memory.",
    helps="Tasks one after another on good frozen features, where no sample may be kept.",
    hurts="Features that a small generative model cannot draw; many classes, which drift with every replay.",
    cost="Training of a small auto-encoder a task, with replay; a linear solve of the size of the support.",
    neutral="",
    kind="solver",
)


class ConditionalVAE(nn.Module):
    """An auto-encoder of vectors that draws new ones of a given class.

    z given y is a Gaussian whose mean and variance are learned for each class; x given z and y is a Gaussian around
    the decoder's output with one variance, learned too, so that nothing weighs reconstruction against divergence.

    inputs: size of x; classes: how many; latent: size of z; hidden: width of encoder and decoder.
    """

    def __init__(self, inputs: int, classes: int, latent: int = 16, hidden: int = 128) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent + classes, hidden), nn.ReLU(), nn.Linear(hidden, inputs))
        self.prior = nn.Parameter(torch.zeros(classes, 2 * latent))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def losses(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The negative evidence lower bound of every sample in nats, up to a constant, (B,), and the means of z."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        found = self._decoded(mean + (0.5 * log_variance).exp() * noise, labels)
        missed = 0.5 * (x - found).square().sum(1) * (-2.0 * self.log_scale).exp() + x.shape[1] * self.log_scale
        return missed + gaussian_divergence(mean, log_variance, *self.prior[labels].chunk(2, dim=1)), mean

    @torch.no_grad()
    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """A vector of each of these classes: (B,) -> (B, inputs)."""
        mean, log_variance = self.prior[labels].chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        found = self._decoded(mean + (0.5 * log_variance).exp() * noise, labels)
        return found + self.log_scale.exp() * torch.randn(found.shape, generator=generator).to(found)

    def _decoded(self, z: Tensor, labels: Tensor) -> Tensor:
        x: Tensor = self.decoder(torch.cat([z, F.one_hot(labels, self.classes).to(z)], dim=1))
        return x


class GenerativeKernelReplay(nn.Module):
    """Learn tasks in sequence by kernel ridge regression on samples that a conditional auto-encoder draws.

    Call `learn` with each task's features and labels, then the model itself with features of any task: scores are those
    of the regression from a drawn support of every class asked for onto the classes. Nothing of a task is kept but the
    auto-encoder, which learns each new task together with samples that it draws of the old ones; the classifier has no
    weights that could forget. It is an `nn.Module`: `state_dict` is all that it knows.

    features, classes: their size and number; kernel: "linear", or "fourier" for 1024 random features of a Gaussian
    kernel; ridge: lambda, positive; width: of the Gaussian kernel, positive; contrast: how strongly latent codes of a
    class are drawn together and pushed from others', at least 0, where 0 leaves it out; support: samples drawn a class;
    latent, hidden: sizes of the auto-encoder; seed: of its weights and of all draws. Features should be of comparable
    size, as those of a normalised layer. Source: Derakhshani, Zhen, Shao, Snoek 2021, arXiv 2112.13410; the learned
    kernel of the paper is not here: pass learned features.

    >>> import torch, tikhon
    >>> replay = tikhon.GenerativeKernelReplay(features=8, classes=4)
    >>> for first in (0, 2):  # two tasks of two classes
    ...     labels = first + torch.arange(20) % 2
    ...     replay.learn(torch.nn.functional.one_hot(labels, 8).float(), labels, epochs=5)
    >>> replay(torch.randn(3, 8)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        features: int,
        classes: int,
        kernel: Literal["linear", "fourier"] = "linear",
        ridge: float = 1.0,
        width: float = 1.0,
        contrast: float = 1.0,
        support: int = 50,
        latent: int = 16,
        hidden: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if kernel not in ("linear", "fourier"):
            raise TikhonError(f"kernel is 'linear' or 'fourier', not {kernel!r}.")
        if min(features, classes, support, latent, hidden) < 1:
            raise TikhonError("features, classes, support, latent and hidden must be positive integers.")
        if not (ridge > 0 and width > 0 and contrast >= 0):
            raise TikhonError(f"ridge and width must be positive, contrast at least 0: {ridge}, {width}, {contrast}.")
        self.kernel, self.ridge, self.contrast, self.support, self.seed = kernel, ridge, contrast, support, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("auto-encoder", seed))
            self.vae = ConditionalVAE(features, classes, latent, hidden)
        generator = torch.Generator().manual_seed(seed_for("fourier", seed))
        self.seen: Tensor
        self.directions: Tensor
        self.phases: Tensor
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))
        self.register_buffer("directions", torch.randn(features, 1024, generator=generator) / width)
        self.register_buffer("phases", 2.0 * math.pi * torch.rand(1024, generator=generator))

    def learn(
        self, features: Tensor, labels: Tensor, epochs: int = 100, batch_size: int = 64, learning_rate: float = 3e-3
    ) -> None:
        """One task: train the auto-encoder on it and on what it draws of the classes before.

        features: (N, D); labels: (N,), int64; classes may come again. Adam, in batches of `batch_size` of the task's
        samples, to which as many drawn ones of every old class come as there are of a new one.
        """
        self._refuse(features)
        if labels.shape != features.shape[:1] or labels.dtype != torch.int64 or not len(labels):
            raise TikhonError(f"Labels must be {len(features)} int64, at least one, not {tuple(labels.shape)}.")
        if int(labels.min()) < 0 or int(labels.max()) >= len(self.seen):
            raise TikhonError(f"Labels range up to {int(labels.max())}; there are {len(self.seen)} classes, from 0.")
        own = labels.unique()
        past = self.seen.clone()
        past[own] = False
        old, before = copy.deepcopy(self.vae), past.nonzero()[:, 0]
        generator = torch.Generator().manual_seed(seed_for("learn", self.seed, *self.seen.tolist()))
        optimizer = torch.optim.Adam(self.vae.parameters(), lr=learning_rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(labels), generator=generator).to(labels.device).split(batch_size):
                x, y = features[rows], labels[rows]
                if len(before):
                    drawn = before.repeat(max(1, len(rows) // len(own)))
                    x, y = torch.cat([x, old.sample(drawn, generator)]), torch.cat([y, drawn])
                losses, codes = self.vae.losses(x, y, generator)
                loss = losses.mean() + self.contrast * supervised_contrast(codes, y).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.seen[own] = True

    @torch.no_grad()
    def forward(self, features: Tensor, among: Tensor | None = None) -> Tensor:
        """Scores of every class, (B, classes); -inf for those that are not asked for.

        features: (B, D); among: the classes of the task, where it is known, (C,); None: all that were learned.
        """
        self._refuse(features)
        asked = self.seen.nonzero()[:, 0] if among is None else among.to(self.seen.device)
        if not len(asked) or not bool(self.seen[asked].all()):
            raise TikhonError("Some of these classes were not learned yet: call learn with their samples first.")
        labels = asked.repeat_interleave(self.support)
        drawn = self.vae.sample(labels, torch.Generator().manual_seed(seed_for("support", self.seed)))
        support, queries = self._mapped(drawn), self._mapped(features)
        targets = F.one_hot(labels, len(self.seen)).to(support)
        scores = kernel_ridge(support @ support.T, support @ queries.T, targets, self.ridge)
        hidden = torch.ones_like(self.seen)
        hidden[asked] = False
        return scores.masked_fill(hidden, -torch.inf)

    def _mapped(self, features: Tensor) -> Tensor:
        return features if self.kernel == "linear" else fourier_features(features, self.directions, self.phases)

    def _refuse(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != len(self.directions) or not features.is_floating_point():
            raise TikhonError(f"Features must be (B, {len(self.directions)}) floats, not {tuple(features.shape)}.")
