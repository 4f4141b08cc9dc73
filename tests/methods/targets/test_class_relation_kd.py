"""Class-relation distillation: weights by hand, a loop over novel samples, and the recipe."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.targets.class_relation_kd import transfer_weights

KNOWN, CLASSES = 3, 5


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


INPUTS = drawn(8, 4)
LABELS = torch.tensor([0, 3, 1, 4, 4, 2, 3, -100])
NOVEL = [1, 3, 4, 6, 7]


def ready(*others, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    recipe = tikhon.Recipe(tikhon.ClassRelationKD(known=KNOWN, **arguments), *others)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recipe.attach(optimizer)
    return recipe, model, optimizer


def test_weights_have_mean_one_over_novel_samples_and_follow_what_is_known() -> None:
    scores = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [3.0, 3.0]])
    novel = torch.tensor([1.0, 1.0, 1.0, 0.0])
    found = transfer_weights(scores, 1, novel, temperature=1.0)
    share = scores.softmax(1)[:3, 0]
    torch.testing.assert_close(found, torch.cat([share / share.mean(), torch.zeros(1)]))
    assert torch.equal(transfer_weights(scores, 1, torch.zeros(4)), torch.zeros(4))


@pytest.mark.parametrize("soft", [False, True])
def test_the_term_is_a_loop_over_novel_samples_against_the_frozen_copy(soft) -> None:
    recipe, model, optimizer = ready(strength=0.7, temperature=2.0)
    old = copy.deepcopy(model).eval()
    for _ in range(5):
        optimizer.zero_grad()
        recipe.loss(INPUTS, LABELS.clamp_min(0)).backward()
        optimizer.step()
    output = model(INPUTS)
    shares = [(output[i] / 2.0).softmax(0)[:KNOWN].sum() for i in NOVEL]
    total = torch.zeros((), dtype=torch.float64)
    for share, i in zip(shares, NOVEL, strict=True):
        p, q = (old(INPUTS)[i, :KNOWN] / 2.0).softmax(0), (output[i, :KNOWN] / 2.0).softmax(0)
        total = total - share / torch.stack(shares).mean() * 4.0 * (p * q.log()).sum() / len(NOVEL)
    labels = LABELS
    if soft:
        labels = 0.7 * F.one_hot(LABELS.where(LABELS >= 0, KNOWN), CLASSES).double() + 0.3 / CLASSES
    expected = F.cross_entropy(output, labels) + 0.7 * total
    found = recipe.loss(INPUTS, labels)
    torch.testing.assert_close(found, expected)
    leaves = list(model.parameters())
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_without_novel_samples_it_is_plain() -> None:
    recipe, model, _ = ready()
    labels = torch.arange(8) % KNOWN
    torch.testing.assert_close(recipe.loss(INPUTS, labels), F.cross_entropy(model(INPUTS), labels))


def test_the_relation_to_known_classes_is_kept() -> None:
    def drift(strength):
        recipe, model, optimizer = ready(strength=strength)
        before = model.eval()(INPUTS)[NOVEL, :KNOWN].detach()
        model.train()
        for _ in range(100):
            optimizer.zero_grad()
            recipe.loss(INPUTS, LABELS).backward()
            optimizer.step()
        after = model.eval()(INPUTS)[NOVEL, :KNOWN]
        return F.kl_div(after.log_softmax(1), before.log_softmax(1), log_target=True, reduction="batchmean").item()

    assert drift(1.0) < 0.5 * drift(0.0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="known"):
        tikhon.ClassRelationKD(known=0)
    with pytest.raises(TikhonError, match="temperature"):
        tikhon.ClassRelationKD(known=2, temperature=0.0)
    model = nn.Linear(4, KNOWN)
    recipe = tikhon.Recipe(tikhon.ClassRelationKD(known=KNOWN))
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TikhonError, match="more than known=3"):
        recipe.loss(torch.zeros(2, 4), torch.tensor([0, 1]))
