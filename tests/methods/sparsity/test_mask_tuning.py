"""Mask tuning: the official formula of agreement, straight-through masks, gradients by hand, and what is exported."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.sparsity.mask_tuning import agreement, binary_mask


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


INPUTS, LABELS = drawn(24, 5), torch.arange(24) % 4


def ready(*others, sgd=0.1, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    recipe = tikhon.Recipe(tikhon.RegularizedMaskTuning(**arguments), *others, seed=3)
    recipe.prepare(model)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=sgd)
    recipe.attach(optimizer)
    return recipe, model, optimizer


def scores_of(model):
    return [model[i].parametrizations.weight.original for i in (0, 2)]


def test_agreement_is_the_published_formula() -> None:
    g, h = drawn(30), drawn(29, 1)[:, 0]
    g = g[:29]
    torch.testing.assert_close(agreement(g, h), 0.5 * (1.0 + g.sign() * (g + h) / (g.abs() + h.abs())))
    zero = torch.zeros(2)
    assert torch.equal(agreement(torch.tensor([2.0, 0.0]), zero), torch.ones(2))
    tiny = agreement(torch.tensor([1e-30]), torch.tensor([-1e-30]))  # whose product underflows
    assert tiny.item() == 0.5


def test_masks_are_exact_and_their_gradient_passes_straight_through() -> None:
    scores = torch.tensor([0.3, 0.1, -0.7], requires_grad=True)
    mask = binary_mask(scores, 0.1)
    assert mask.tolist() == [1.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad((mask * torch.tensor([2.0, 3.0, 4.0])).sum(), scores)
    assert gradient.tolist() == [2.0, 3.0, 4.0]


def by_hand(model, frozen):
    """The gradients of the task and of general knowledge with respect to the masks."""
    output = model(INPUTS)
    general = F.kl_div(output.log_softmax(1), frozen(INPUTS).log_softmax(1), log_target=True, reduction="batchmean")
    task = torch.autograd.grad(F.cross_entropy(output, LABELS), scores_of(model), retain_graph=True)
    return task, torch.autograd.grad(general, scores_of(model))


@pytest.mark.parametrize(("second_pass", "sizes"), [(False, [24]), (True, [24]), (False, [5, 19])])
def test_gradients_that_disagree_are_dropped_as_often_as_they_disagree(second_pass, sizes) -> None:
    others = [tikhon.SAM(1e-9)] if second_pass else []
    torch.manual_seed(0)
    frozen = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    recipe, model, optimizer = ready(*others, sgd=0.0)
    with torch.no_grad():
        for one in scores_of(model):
            one[::3, ::2] = 0.0
    task, general = by_hand(model, frozen)
    kept = [torch.zeros_like(one) for one in task]
    steps = 300
    for _ in range(steps):
        optimizer.zero_grad()
        for rows in torch.arange(24).split(sizes):
            recipe.loss(INPUTS[rows], LABELS[rows], total=24.0).backward()
        optimizer.step()
        for number, one in enumerate(scores_of(model)):
            stays = one.grad != 0.0
            torch.testing.assert_close(one.grad[stays], task[number][stays], rtol=1e-6, atol=1e-12)
            kept[number] += stays
    for count, g, h in zip(kept, task, general, strict=True):
        expected = agreement(g, h)
        assert (expected < 0.9).any()
        torch.testing.assert_close(count / steps, expected, rtol=0.0, atol=0.15)  # five standard errors
        assert torch.equal(count[expected == 1.0], torch.full_like(count[expected == 1.0], steps))


def test_half_a_drop_keeps_half_of_what_is_dropped() -> None:
    recipe, model, optimizer = ready(drop=0.5, sgd=0.0)
    with torch.no_grad():
        scores_of(model)[0][::3] = 0.0
    (task, _), _ = by_hand(model, copy.deepcopy(recipe.methods["mask_tuning"].frozen))
    recipe.loss(INPUTS, LABELS).backward()
    optimizer.step()
    ratio = scores_of(model)[0].grad / task
    halves = torch.isclose(ratio, torch.tensor(0.5).double())
    assert halves.any()
    assert (halves | torch.isclose(ratio, torch.tensor(1.0).double())).all()


def test_only_masks_are_learned_and_export_gives_masked_weights() -> None:
    recipe, _, optimizer = ready(sgd=0.5)
    before = dict(recipe.methods["mask_tuning"].frozen.named_parameters())
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = recipe.loss(INPUTS, LABELS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.9 * losses[0]
    for name, one in recipe.export().named_parameters():
        switched_off = one == 0.0
        assert torch.equal(one[~switched_off], before[name][~switched_off])
        assert switched_off.any() == name.endswith("weight")
        assert one.requires_grad


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="threshold"):
        tikhon.RegularizedMaskTuning(start=0.005)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(TikhonError, match="tied"):
        tikhon.Recipe(tikhon.RegularizedMaskTuning()).prepare(tied)
