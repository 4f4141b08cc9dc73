"""Spatial dropout: set whole feature maps to zero, because neighbours in a map say nearly the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.inserted import At, Inserted, check_places
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.math.random import dropped


def spatially_dropped(features: Tensor, p: float | Tensor) -> Tensor:
    """Every channel of every sample is 0 with probability p, and otherwise divided by 1 - p (Tompson et al. 2015).

    features: (B, C, ...) with at least one spatial axis; p: in [0, 1], a number or a tensor (). For numbers these are
    the draws of `F.dropout1d`, 2d and 3d, from torch's global generator. arXiv 1411.4280, sec. 3.2.

    >>> spatially_dropped(torch.ones(1, 2, 3), 0.0).shape
    torch.Size([1, 2, 3])
    """
    if features.ndim < 3:
        raise TikhonError(
            f"Spatial dropout acts on maps (B, C, L), (B, C, H, W) or (B, C, D, H, W), not on {tuple(features.shape)}: "
            "name another module with at=, or use Dropout."
        )
    return features * dropped(features.new_ones(*features.shape[:2], *[1] * (features.ndim - 2)), p)


class SpatialDropout(Method):
    """Set whole channels of random samples to zero while training, and scale the others up.

    Use it after convolutions, where dropout of single pixels is filled in from their neighbours. Not where there are
    few channels, nor in front of batch norm, whose running statistics are then those of dropped maps.

        h_c <- m_c h_c / (1 - p),   m_c ~ Bernoulli(1 - p) for every channel of every sample

    at: after which modules, names or globs of the parts of names ("features.*.relu"); these return maps (B, C, ...);
    p: the share of channels dropped, in [0, 1]; the paper names none, 0.5 is torch's. Evaluation and the exported model
    are the plain network.

    Cost: one multiplication of the features. Masks come from torch's global generator, as `nn.Dropout2d`'s do.
    Reference: Tompson, Goroshin, Jain, LeCun, Bregler 2015, arXiv 1411.4280.

    >>> recipe = tikhon.Recipe(tikhon.SpatialDropout(at="layer3", p=0.2))
    """

    card = Card(
        title="Efficient Object Localization Using Convolutional Networks",
        authors="Tompson, Goroshin, Jain, LeCun, Bregler",
        year=2014,
        arxiv="1411.4280",
        problems=("overfitting",),
        formula=r"h_c \leftarrow m_c\, h_c / (1-p),\quad m_c \sim \mathrm{Bernoulli}(1-p)",
        claim="Improves a convolutional network with few training data where dropout of pixels does not.",
        helps="Convolutional networks with many channels and few samples.",
        hurts="Few channels, short training, batch norm that follows it.",
        cost="One multiplication of the features.",
        neutral="p=0",
        example="at='2', p=0.2",
    )
    slots = {"prepare": "gate", "batch": "augment", "export": "merge"}
    exempt = {
        "accumulation": "every micro-batch draws masks of its own",
        "permutation": "masks belong to places in the batch",
        "reproducible": "masks come from the global generator, as those of nn.Dropout2d do",
    }

    def __init__(self, at: At, p: Strength = 0.5) -> None:
        super().__init__()
        self.p = checked("p", p, low=0.0, high=1.0)
        self.at = at
        self._layers = Inserted(spatially_dropped)

    def check(self, model: nn.Module) -> None:
        check_places(model, self.at, self.key)

    def prepare(self, model: nn.Module) -> None:
        self._layers.place(model, self.at, self.key)

    def batch(self, inputs: Any, target: Target, step: Step) -> tuple[Any, Target]:
        self._layers.set(self.p, target, step)
        return inputs, target

    def export(self, model: nn.Module) -> nn.Module:
        self._layers.remove()
        return model
