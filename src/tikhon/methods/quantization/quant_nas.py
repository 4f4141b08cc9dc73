"""QuantNAS: search for operations and bit widths at once, with noise in place of rounding."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError
from tikhon.core.export import merge_parametrization
from tikhon.core.method import Method
from tikhon.core.mixed import Choice, Mixed, choices, put
from tikhon.core.noisy import Noise, bit_operations, has_width, layers_of
from tikhon.core.parameters import Where, check_parametrizable, every_parameter, find_module, select
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked, linear
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.entropy import softmax_entropy

RISING = linear(0.0, 1e-3)
"""The price of entropy: at first all candidates are tried, in the end one of them has to win."""


class QuantNAS(Method):
    """Train candidate operations and bit widths together, and let the price of their bit operations choose.

    Use it before quantising a network that has to be cheap: it finds how many bits each layer needs and, where you
    name alternatives, which operation does its work, and it makes the weights ready for rounding. Not for a network
    that stays in floating point, nor where one width is prescribed (`tikhon.blocks.quantization.aqt`).

        y = sum_k p_k f_k(x; w + sum_b p_b|k e_b(w), x + sum_b p_b|k e_b(x)),   e_b(v) ~ U(-1/2, 1/2) Delta_b(v)
        loss = task + price B(p) / B(uniform) + entropy sum H(p),   p = softmax(a) over all pairs (k, b)

    Delta_b: the step of b bits, (max - min) / (2^b - 1) of a weight or of an input; B: expected multiplications times
    b^2; H: entropy in nats. In evaluation the model is what `export` gives: the chosen operations, without noise, and
    in floating point; then `operations` and `widths` say what was chosen, and `quantize_aqt(model, method.widths)`
    makes it a network of such integers, to be trained a little longer.

    bits: the widths, for weights and inputs of a layer alike; price: of the bit operations, 0 to 5e-3 in the paper;
    entropy: mu(t), which has to grow; alternatives: a module's name -> the modules that may take its place, of inputs
    and outputs of the same shape; where: the layers (linear, convolution) outside these places that get widths.

    The strengths are the paper's, for an absolute error of pictures in [0, 1] and Adam: a loss ten times as large asks
    for ten times as much. The logits a are parameters of your model (`...choice.logits`) and want Adam, without weight
    decay; the paper trains them in turn with the weights, on a half of the data of their own. A layer that is called
    several times in a pass counts once. With alternatives, methods that need lasting layers are refused: train with
    them the network that `export` gives. The official code draws the noise from a normal distribution of deviation
    Delta / 2, and charges b, not b^2, in the search. The paper's block against batch norm is a part of its networks.

    Cost: every alternative is computed; a draw for every width, weight and input. Draws come from torch's global
    generator, as those of `nn.Dropout` do.
    Reference: Shvetsov, Osin, Zaytsev, Koryakovskiy, Buchnev, Trofimov, Burnaev 2022, arXiv 2208.14839.

    >>> recipe = tikhon.Recipe(tikhon.QuantNAS(alternatives={"features.0": [nn.Conv2d(1, 8, 1)]}))
    """

    card = Card(
        title="QuantNAS for super resolution: searching for efficient quantization-friendly architectures "
        "against quantization noise",
        authors="Shvetsov, Osin, Zaytsev, Koryakovskiy, Buchnev, Trofimov, Burnaev",
        year=2022,
        arxiv="2208.14839",
        problems=("compression",),
        formula=r"L = \mathrm{task} + \eta\,B(p)/B(\mathrm{uniform}) + \mu(t)\textstyle\sum H(p),"
        r"\quad e_b \sim \mathcal{U}(-\tfrac12,\tfrac12)\,\Delta_b",
        claim="A better trade-off of quality and bit operations than fixed networks of uniform or mixed precision.",
        helps="Networks for integer arithmetic whose layers differ in how many bits they need.",
        hurts="Short training, in which the choice does not settle; memory, with many alternatives.",
        cost="Every alternative is computed; a draw for every bit width, weight and input.",
        neutral="",
    )
    slots = {"prepare": "parametrize", "export": "merge"}
    needs = frozenset({"plain weights"})
    breaks = frozenset({"plain weights"})
    exempt = {
        "neutral": "weights and inputs are noisy at any strength",
        "accumulation": "every micro-batch draws noise of its own",
        "permutation": "every place in the batch draws noise of its own",
        "reproducible": "noise comes from the global generator, as the masks of nn.Dropout do",
        "shards": "the step of a weight spans all of it, of which a process holds rows",
    }

    def __init__(
        self,
        bits: tuple[int, ...] = (2, 4, 8),
        price: Strength = 1e-3,
        entropy: Strength = RISING,
        alternatives: Mapping[str, Sequence[nn.Module]] | None = None,
        where: Where = "weights",
    ) -> None:
        super().__init__()
        valid = [one for one in bits if isinstance(one, int) and not isinstance(one, bool) and 2 <= one <= 16]
        if not bits or len(set(valid)) != len(bits):
            raise TikhonError(f"bits must be different integers from 2 to 16, as in (2, 4, 8), not {bits!r}.")
        self.bits, self.where = tuple(bits), where
        self.price = checked("price", price, low=0.0)
        self.entropy = checked("entropy", entropy, low=0.0)
        self.alternatives = {name: tuple(others) for name, others in (alternatives or {}).items()}
        if self.alternatives:
            self.breaks = self.breaks | {"lasting layers"}
        self.operations: dict[str, int] = {}
        """After export: place -> which operation: 0 is the model's own, 1 the first alternative."""
        self.widths: dict[str, int] = {}
        """After export: layer -> bits of its weight and its input."""
        self._handles: list[RemovableHandle] = []

    def check(self, model: nn.Module) -> None:
        for name, others in self.alternatives.items():
            find_module(model, name, self.key)
            if not others or not all(isinstance(one, nn.Module) for one in others):
                raise TikhonError(f"alternatives must give {name!r} modules, as in [nn.Conv2d(8, 8, 1)], not {others}.")
            inside = [one for one in self.alternatives if one.startswith(f"{name}.")]
            if inside:
                raise TikhonError(f"alternatives has {name!r} and {inside[0]!r} inside it: leave one of them out.")
        layers = {id(layer) for operations in self._places(model).values() for layer in layers_of(*operations)}
        if not layers:
            raise TikhonError(f"{self.key} finds no linear or convolution layer to quantise: see where= and its type.")
        for whole in (model, *(other for others in self.alternatives.values() for other in others)):
            leaves = [one for one in every_parameter(whole) if id(one.module) in layers]
            check_parametrizable(whole, [one for one in leaves if one.attribute == "weight"], self.key)

    def _places(self, model: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        """Name -> the operations that compete there: one for a layer that is in no alternative's place."""
        places = {name: (model.get_submodule(name), *others) for name, others in self.alternatives.items()}
        taken = {id(layer) for own, *_ in places.values() for layer in own.modules()}
        for one in select(model, self.where):
            if one.attribute == "weight" and has_width(one.module) and id(one.module) not in taken:
                places[one.name.rpartition(".")[0]] = (one.module,)
        return places

    def prepare(self, model: nn.Module) -> None:
        like = next(model.parameters())
        for name, (own, *others) in self._places(model).items():
            operations = [own, *(copy.deepcopy(one).to(like).train(own.training) for one in others)]
            choice = Choice([self.bits if layers_of(one) else self.bits[:1] for one in operations], like)
            if name in self.alternatives:
                put(model, name, Mixed(operations, choice).train(own.training))
            else:
                own.choice = choice
            for number, operation in enumerate(operations):
                for layer in layers_of(operation):
                    noise = Noise(choice, number).train(layer.training)
                    parametrize.register_parametrization(layer, "weight", noise)
                    self._handles += [layer.register_forward_pre_hook(noise.enter)]
                    self._handles += [layer.register_forward_hook(noise.leave, always_call=True)]

    def parameter_terms(self, model: nn.Module, step: Step) -> Terms:
        undecided = [softmax_entropy(choice.logits[None]) for _, _, choice in choices(model)]
        return {"entropy": Term(torch.cat(undecided).sum(), self.entropy, per_sample=False)}

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        """The price: after the pass, which tells how often each weight is used."""
        costs = bit_operations(step.model)
        shares = torch.cat([choice.shares() for choice in costs])
        uniform = sum(sum(cost) / len(cost) for cost in costs.values()) or 1.0
        prices = torch.tensor([one / uniform for cost in costs.values() for one in cost]).to(shares)
        return {"bit operations": Term((shares * prices).sum(), self.price, per_sample=False)}

    def export(self, model: nn.Module) -> nn.Module:
        for handle in self._handles:
            handle.remove()
        merge_parametrization(model, Noise)
        for name, place, choice in list(choices(model)):
            number, bits = choice.best()
            del place.choice
            if isinstance(place, Mixed):
                self.operations[name] = number
                place = place.operations[number]
                put(model, name, place)
            inside = {f"{name}.{inner}".strip("."): one for inner, one in place.named_modules()}
            self.widths |= {inner: bits for inner, one in inside.items() if has_width(one)}
        return model
