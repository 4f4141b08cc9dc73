"""Magnitude pruning beside torch: which weights are the smallest of all, and a training step with masks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import tikhon as tk
from benchmarks.harness import Pair, case
from benchmarks.networks import ResNet20, perceptron, training
from tikhon.methods.sparsity.magnitude_pruning import largest_kept

SPARSITY = 0.9


def layers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(module, "weight") for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def by_magnitude(width: int) -> Pair:
    model = ResNet20(width)
    places = layers(model)
    weights = [module.weight for module, _ in places]

    def ours() -> tuple[Tensor, ...]:
        masks = largest_kept(weights, SPARSITY)
        return tuple(weight.detach() * mask for weight, mask in zip(weights, masks, strict=True))

    def theirs() -> tuple[Tensor, ...]:
        """The hooks and copies that it leaves are taken away again, outside of what it has to answer."""
        prune.global_unstructured(places, prune.L1Unstructured, amount=SPARSITY)
        pruned = tuple(module.weight for module, _ in places)
        for module, name in places:
            original = getattr(module, f"{name}_orig")
            del module._forward_pre_hooks[next(iter(module._forward_pre_hooks))]
            delattr(module, name)
            del module._buffers[f"{name}_mask"], module._parameters[f"{name}_orig"]
            module.register_parameter(name, original)
        return pruned

    return Pair(ours, theirs)


@case("nine of ten weights of all layers are pruned, ResNet-20 of 0.27 million", peer="torch")
def narrow() -> Pair:
    return by_magnitude(width=16)


@case("nine of ten weights of all layers are pruned, ResNet-20 of 1.1 million", peer="torch")
def wide() -> Pair:
    return by_magnitude(width=32)


@case("training step with nine of ten weights pruned, MLP 64-256-256-10, batch 128", peer="torch")
def step() -> Pair:
    """From the same weights on, pruned before the first step; answers are the weights."""
    inputs, labels = torch.randn(128, 64), torch.randint(10, (128,))

    def sides() -> tuple:
        model = perceptron()
        twin = copy.deepcopy(model)
        recipe = tk.Recipe(tk.MagnitudePruning(SPARSITY, over=(0.0, 0.0), where="weights"))
        recipe.prepare(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        recipe.attach(optimizer, steps=10**6)

        def ours() -> tuple[Tensor, ...]:
            optimizer.zero_grad()
            recipe.loss(inputs, labels).backward()
            optimizer.step()
            return tuple(model[place].weight for place in (0, 2, 4))

        ours()  # prunes
        twin.load_state_dict(model.state_dict())
        prune.global_unstructured(layers(twin), prune.L1Unstructured, amount=SPARSITY)
        stepped = training(twin, inputs, labels, torch.optim.SGD(twin.parameters(), lr=1e-3))

        def theirs() -> tuple[Tensor, ...]:
            stepped()
            return tuple(twin[place].weight for place in (0, 2, 4))

        return ours, theirs, twin

    def same() -> bool:
        ours, theirs, twin = sides()
        for _ in range(5):
            mine = ours()
            theirs()
        others = [twin[place].weight_orig * twin[place].weight_mask for place in (0, 2, 4)]
        return all(torch.allclose(one, other, rtol=1e-5, atol=1e-7) for one, other in zip(mine, others, strict=True))

    ours, theirs, _ = sides()
    return Pair(ours, theirs, same=same)
