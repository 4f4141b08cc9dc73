"""AdaMixUp: MixUp whose shares are learned, so that no mixture lands where other data lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tikhon.core.batches import first_tensor, mix_inputs
from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.losses import weighted_losses
from tikhon.core.method import Method
from tikhon.core.parameters import find_module, last_linear
from tikhon.core.step import Step, seed_for
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms

HIDDEN = 100
"""Width of the policy's hidden layer."""

POLICY = tuple(f"adamixup_policy_{kind}{layer}" for layer in (1, 2) for kind in ("weight", "bias"))
INTRUSION = ("adamixup_intrusion_weight", "adamixup_intrusion_bias")
"""Parameters of the model itself: a module would be called by a model that calls all its modules in turn."""


def policy_share(scores: Tensor, draws: Tensor) -> Tensor:
    """a + D e with (a, D, 1 - a - D) = softmax(scores): a share from the interval [a, a + D] (Guo et al. 2019, sec. 4).

    scores: (B, 3), of the pairs; draws: (B,), uniform in [0, 1). Returns (B,), in (0, 1), differentiable in the scores.
    Source: arXiv 1809.02499.

    >>> policy_share(torch.zeros(2, 3), torch.tensor([0.0, 0.5]))
    tensor([0.3333, 0.5000])
    """
    low, width, _ = scores.softmax(1).unbind(1)
    return low + width * draws


def mixed_by_row(inputs: Tensor, permutation: Tensor, share: Tensor) -> Tensor:
    """l_i x_i + (1 - l_i) x_j with j = permutation[i]. inputs: (B, ...); permutation, share: (B,). Returns (B, ...).

    >>> mixed_by_row(torch.tensor([[0.0], [1.0]]), torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    tensor([[0.2500],
            [0.5000]])
    """
    share = share.reshape(-1, *[1] * (inputs.ndim - 1)).to(inputs.dtype)
    return torch.lerp(inputs[permutation], inputs, share)


def intrusion_losses(real: Tensor, mixed: Tensor) -> Tensor:
    """-log p(real | x_i) - log p(mixed | x~_i): the cross-entropies of the discriminator (Guo et al. 2019, sec. 4).

    real, mixed: (B,), log-odds that a sample and its mixture are real. Returns (B,), positive.

    >>> intrusion_losses(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([1.3863])
    """
    return F.softplus(-real) + F.softplus(mixed)


class AdaMixUp(Method):
    """Train on the samples and on mixtures of pairs, mixed in intervals that a small network learns for each pair.

    Use it where MixUp hurts: where the mixture of two samples of one class lies among the samples of another, so that
    their labels contradict each other. A discriminator tells samples from mixtures; the policy is trained, as is the
    network, to make that easy. Not where MixUp does well: this costs twice as much.

        l = a + D e,  e ~ U(0, 1),  (a, D, .) = softmax(policy(h_i, h_j)),  x~ = l x_i + (1 - l) x_j
        loss = task + strength [l loss(y_i) + (1 - l) loss(y_j)](x~) - intrusion [log p(real | h) + log p(mixed | h~)]

    strength, intrusion: weights of the loss of the mixtures and of the discriminator's, at least 0; both 1 in the
    paper; at: the module whose input h (B, F) the policy and the discriminator read, the last `nn.Linear` by default.

    The paper's policy is a network as large as the classifier; here it is a hidden layer of 100 on the classifier's own
    features, through which no gradient flows back. The official code halves the task and the mixtures' loss, and shows
    the discriminator two samples for each mixture. The intervals begin as [1/3, 2/3], as there. Policy and
    discriminator train with the model, as parameters `adamixup_*` of it, and are gone after export.

    Cost: a second forward and backward pass. Reference: Guo, Mao, Zhang 2019, arXiv 1809.02499.

    >>> recipe = tikhon.Recipe(tikhon.AdaMixUp())
    """

    card = Card(
        title="MixUp as Locally Linear Out-Of-Manifold Regularization",
        authors="Guo, Mao, Zhang",
        year=2018,
        arxiv="1809.02499",
        problems=("overfitting", "robustness"),
        formula=r"\tilde x = \lambda x_i + (1-\lambda) x_j,\quad \lambda \sim U[\alpha_{ij}, \alpha_{ij}+\Delta_{ij}]",
        claim="Lower test error than MixUp on image benchmarks, because mixtures stay clear of the data.",
        helps="Classes that lie between others, where MixUp under-fits.",
        hurts="Budgets counted in passes; inputs whose average means nothing.",
        cost="A second forward and backward pass.",
        neutral="strength=0, intrusion=0",
    )
    slots = {"prepare": "tap", "export": "merge"}
    exempt = {
        "accumulation": "partners come from the same micro-batch",
        "permutation": "partners are drawn by their place in the batch",
        "shards": "the policy's weights are read outside of the model's own pass, where they are parts",
    }

    def __init__(self, strength: Strength = 1.0, intrusion: Strength = 1.0, at: str | None = None) -> None:
        super().__init__()
        self.strength = checked("strength", strength, low=0.0)
        self.intrusion = checked("intrusion", intrusion, low=0.0)
        self.at = at

    def check(self, model: nn.Module) -> None:
        at = self.at or last_linear(model, self.key)
        if not isinstance(find_module(model, at, self.key), nn.Linear):
            raise TikhonError(f"{self.key} reads the input of an nn.Linear, and {at!r} is none; name one with at=.")
        if hasattr(model, POLICY[0]):
            raise TikhonError(f"{self.key}: the model has a policy already; one recipe learns one.")

    def prepare(self, model: nn.Module) -> None:
        self.at = self.at or last_linear(model, self.key)
        features = int(model.get_submodule(self.at).in_features)  # type: ignore[arg-type]
        like = next(model.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.key, "networks"))
            hidden, scores, judge = nn.Linear(2 * features, HIDDEN), nn.Linear(HIDDEN, 3), nn.Linear(features, 1)
        nn.init.zeros_(scores.weight)  # equal thirds at first
        nn.init.zeros_(scores.bias)
        leaves = [leaf for layer in (hidden, scores, judge) for leaf in (layer.weight, layer.bias)]
        for name, leaf in zip(POLICY + INTRUSION, leaves, strict=True):
            model.register_parameter(name, nn.Parameter(leaf.detach().to(like)))

    def taps(self, model: nn.Module) -> list[str]:
        return [self.at or last_linear(model, self.key)]

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.strength) == 0.0 and step.value(self.intrusion) == 0.0:
            return {}
        assert self.at is not None, "terms follow prepare"
        real = self._rows(step.tap(self.at).input, len(output))
        device = first_tensor(step.inputs).device
        permutation = torch.randperm(len(output), generator=step.generator(device), device=device)
        draws = torch.rand(len(output), generator=step.generator(device), device=device)
        pairs = torch.cat([real, real[permutation]], dim=1).detach()
        share = policy_share(_policy(pairs, [getattr(step.model, name) for name in POLICY]), draws.to(real))
        inputs = mix_inputs(lambda values: mixed_by_row(values, permutation, share), step.inputs, self.key)
        scores, features = step.forward_with_taps(inputs)
        mixed = self._rows(features[self.at].input, len(output))
        losses, mass = weighted_losses(step.loss, scores, target.mix(permutation, share.to(output.dtype)))
        # A weighted mean of its own: a mixture weighs what its two samples do, each for its share.
        mean = losses.mean() if mass is None else losses.sum() / mass.detach().sum().clamp_min(1e-12)
        judge = [getattr(step.model, name) for name in INTRUSION]
        judged = intrusion_losses(F.linear(real, *judge)[:, 0], F.linear(mixed, *judge)[:, 0])
        return {
            "mixed": Term(mean, self.strength, per_sample=False),
            "intrusion": Term(judged, self.intrusion),
        }

    def _rows(self, features: Tensor, rows: int) -> Tensor:
        """Features (B, F); of several dropout masks a sample, the mean."""
        if features.ndim != 2 or len(features) % rows:
            raise TikhonError(
                f"{self.key} reads one row of features a sample at {self.at!r}, not {tuple(features.shape)} for "
                f"{rows} samples; name another module with at=."
            )
        return features.reshape(-1, rows, features.shape[1]).mean(0)

    def export(self, model: nn.Module) -> nn.Module:
        for name in POLICY + INTRUSION:
            delattr(model, name)
        return model


def _policy(pairs: Tensor, leaves: list[Tensor]) -> Tensor:
    """Scores (B, 3) of pairs (B, 2F): the network of two layers, weight and bias of each in `leaves`."""
    return F.linear(F.relu(F.linear(pairs, *leaves[:2])), *leaves[2:])
