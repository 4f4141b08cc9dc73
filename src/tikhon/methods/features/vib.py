"""Deep variational information bottleneck: a classifier sees its features through noise, and pays for each nat."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.method import Method
from tikhon.core.parameters import find_module, last_linear
from tikhon.core.step import Step, seed_for
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.precision import at_least_float32
from tikhon.math.variational import gaussian_divergence

PARAMETERS = ("vib_weight", "vib_bias")
"""What the model gets while it trains: the linear map from features to their noise."""


def deviation(raw: Tensor) -> Tensor:
    """softplus(raw - 5), the standard deviation of a code (Alemi et al. 2016, arXiv 1612.00410, section 4).

    raw: any shape. Returns the same shape, positive: 0.0067 at 0, as good as no noise.

    >>> deviation(torch.tensor([0.0, 5.0]))
    tensor([0.0067, 0.6931])
    """
    return F.softplus(raw - 5.0)


def rate(mean: Tensor, deviations: Tensor) -> Tensor:
    """KL(N(mean, deviations^2) || N(0, 1)) of every row, in nats: a bound of what the code says of the input.

    mean, deviations: (B, D), deviations positive. Returns (B,), at least 0.

    >>> rate(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([1.])
    """
    prior = torch.zeros_like(mean)
    log_variance = 2.0 * deviations.clamp_min(torch.finfo(deviations.dtype).tiny).log()
    return gaussian_divergence(mean, log_variance, prior, prior)


class VIB(Method):
    """Let the classifier see its features through noise, and penalise how much is seen.

    Use it where a classifier over-fits, is over-confident, or breaks under small changes of its input: what the labels
    do not need is lost in the noise. Not with a strength that no feature survives: watch the term `rate`, in nats.

        loss = E_z task(z, y) + strength KL(N(h, s(h)^2) || N(0, 1)),   z ~ N(h, s(h)^2)

    h: the features, which are the mean of the code z; s: their noise, linear in h before a softplus, learned as the
    parameters `vib_weight` (D, D) and `vib_bias` of the model. One sample of z in training, h itself afterwards.

    strength: beta, at least 0: 1e-3 by default; the paper searches from 1e-9 to 1, and on MNIST 1e-3 to 1e-2 is best;
    at: the layer that reads the code, an `nn.Linear`: the last one by default, the classifier.

    Cost: a linear map of the features and one draw for each. Noise comes from torch's global generator, as that of
    `nn.Dropout` does. Export leaves the model as it was written.
    Reference: Alemi, Fischer, Dillon, Murphy 2016, arXiv 1612.00410. There the mean is a linear layer of its own, of
    256; here it is the model's features, which behind a ReLU are not negative. There predictions can be averaged over
    samples of z.

    >>> recipe = tikhon.Recipe(tikhon.VIB(strength=1e-3))
    """

    card = Card(
        title="Deep Variational Information Bottleneck",
        authors="Alemi, Fischer, Dillon, Murphy",
        year=2016,
        arxiv="1612.00410",
        problems=("overfitting", "robustness", "calibration"),
        formula=r"L = \mathbb{E}_{z\sim p(z|x)}[-\log q(y|z)] + \beta\,\mathrm{KL}(p(z|x)\Vert r(z))",
        claim="Generalises better than other regularisers and resists adversarial inputs better.",
        helps="Over-fitting and over-confident classifiers.",
        hurts="Large strengths, under which no feature survives.",
        cost="A linear map of the features, and one draw for each.",
        neutral="",
    )
    slots = {"prepare": "gate", "export": "merge"}
    needs = frozenset({"classes"})
    exempt = {
        "neutral": "the features are noisy at any strength",
        "accumulation": "every micro-batch draws noise of its own",
        "permutation": "noise belongs to places in the batch",
        "reproducible": "noise comes from the global generator, as that of nn.Dropout does",
    }

    def __init__(self, strength: Strength = 1e-3, at: str | None = None) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.at = at
        self._handle: RemovableHandle | None = None

    def check(self, model: nn.Module) -> None:
        place = self.at or last_linear(model, self.key)
        if not isinstance(find_module(model, place, self.key), nn.Linear):
            raise TikhonError(f"{self.key} acts before an nn.Linear, and {place!r} is none: name one with at=.")
        if hasattr(model, PARAMETERS[0]):
            raise TikhonError(f"{self.key}: the model has a bottleneck already.")

    def prepare(self, model: nn.Module) -> None:
        self.at = self.at or last_linear(model, self.key)
        reader = model.get_submodule(self.at)
        assert isinstance(reader, nn.Linear)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.key, "deviation"))
            layer = nn.Linear(reader.in_features, reader.in_features)
        for name, leaf in zip(PARAMETERS, (layer.weight, layer.bias), strict=True):
            model.register_parameter(name, nn.Parameter(leaf.detach().to(reader.weight)))
        here = weakref.ref(model)  # the model holds the hook: else a cycle that only the collector breaks

        def noisy(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            owner = here()
            if owner is None or not module.training:
                return None
            mean = at_least_float32(args[0])
            weight, bias = (getattr(owner, name) for name in PARAMETERS)
            deviations = deviation(at_least_float32(F.linear(args[0], weight, bias)))
            code = (mean + deviations * torch.randn_like(deviations)).to(args[0].dtype)
            # On the tensor itself: then every pass has its own, and nothing outlives its pass.
            code.rate = rate(mean, deviations)  # type: ignore[attr-defined]
            return (code, *args[1:])

        self._handle = reader.register_forward_pre_hook(noisy)

    def taps(self, model: nn.Module) -> list[str]:
        assert self.at is not None, "taps follow prepare"
        return [self.at]

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        assert self.at is not None, "terms follow prepare"
        rates = getattr(step.tap(self.at).input, "rate", None)
        if rates is None:  # the layer is in eval mode
            return {}
        return {"rate": Term(rates.reshape(-1, len(output)).mean(0), self.strength)}

    def export(self, model: nn.Module) -> nn.Module:
        if self._handle is not None:
            self._handle.remove()
        for name in PARAMETERS:
            delattr(model, name)
        return model
