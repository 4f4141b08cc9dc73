"""DR-Tune: Procrustes of scipy, class centres by hand, the pooled loss, the queue, and a model kept from drifting."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.methods.features.dr_tune import calibrated, rotated


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def rotation(size):
    q = torch.linalg.qr(drawn(size, size)).Q
    return q * torch.det(q)  # of an odd size: proper


def test_rotation_is_scipys_and_undoes_a_rotation_and_a_shift() -> None:
    x = drawn(20, 3)
    y = x @ rotation(3) + drawn(3)
    torch.testing.assert_close(rotated(x, y), y - y.mean(0))
    y = y + 0.3 * drawn(20, 3, seed=1)
    centred = x - x.mean(0)
    best, _ = orthogonal_procrustes(centred.numpy(), (y - y.mean(0)).numpy())
    torch.testing.assert_close(rotated(x, y), centred @ torch.from_numpy(best))


def test_rotation_never_mirrors() -> None:
    x = drawn(20, 3)
    found = rotated(x, -x)
    volume = torch.linalg.lstsq(x - x.mean(0), found).solution
    assert torch.det(volume).item() == pytest.approx(1.0)


def test_every_class_gets_the_confident_centre_of_its_own_rows() -> None:
    pretrained, downstream, head = drawn(8, 4), drawn(8, 4, seed=1), drawn(3, 4)
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 5, 5])  # class 2 has no row, label 5 is no class
    found = calibrated(pretrained, downstream, labels, head, torch.tensor(2.0), rotate=False)
    for k, label in enumerate(labels.tolist()):
        row = F.normalize(pretrained[k], dim=0)
        if label < 3:
            rows = [n for n in range(8) if labels[n] == label]
            seen = [F.normalize(downstream[n], dim=0) for n in rows]
            weight = torch.stack([F.cosine_similarity(one, head[label], dim=0) for one in seen]).softmax(0)
            centre = sum(w * one for w, one in zip(weight, seen, strict=True))
            row = row + centre - sum(F.normalize(pretrained[n], dim=0) for n in rows) / len(rows)
        torch.testing.assert_close(found[k], 2.0 * F.normalize(row, dim=0))


def ready(*others, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    model[1].running_mean += 0.1
    recipe = tikhon.Recipe(tikhon.DRTune(**arguments), *others)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer)
    return recipe, model, optimizer


INPUTS, LABELS = drawn(12, 3), torch.arange(12) % 3


def train(recipe, optimizer, steps, labels=LABELS):
    for _ in range(steps):
        optimizer.zero_grad()
        recipe.loss(INPUTS, labels).backward()
        optimizer.step()


def features(model):
    """What the encoder makes of the inputs in eval mode."""
    model.eval()
    found = model[:3](INPUTS).detach()
    model.train()
    return found


def test_the_queue_holds_both_encoders_features_once_a_step_even_with_a_second_pass() -> None:
    recipe, model, optimizer = ready(tikhon.SAM(), size=30)
    queue = recipe.methods["dr_tune"].queue
    before = features(model)
    recipe.loss(INPUTS, LABELS)
    assert len(queue) == 0  # the step has not happened yet
    recipe.loss(INPUTS, LABELS).backward()
    optimizer.step()
    pretrained, downstream, labels = queue.rows
    assert torch.equal(labels, torch.cat([LABELS, LABELS]))
    torch.testing.assert_close(pretrained, torch.cat([before, before]))
    assert (downstream[12:] == 0).double().mean() > 0.2  # dropped, as the classifier saw them
    train(recipe, optimizer, 3)
    assert len(queue) == 30
    torch.testing.assert_close(queue.rows[0][-12:], before)  # the copy does not train


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_pooled_loss_is_one_mean_over_batch_and_queue(strength) -> None:
    recipe, model, optimizer = ready(size=24, pooled=True, strength=strength)
    model[3].p = 0.0
    train(recipe, optimizer, 2)
    pretrained, downstream, labels = recipe.methods["dr_tune"].queue.rows
    features = model[:3](INPUTS)
    rows = calibrated(pretrained, downstream, labels, model[4].weight.detach(), features.detach().norm(dim=1).mean())
    losses = F.cross_entropy(model[4](torch.cat([features, rows])), torch.cat([LABELS, labels]), reduction="none")
    weight = torch.cat([torch.ones(12), strength * torch.ones(24)])
    expected = (losses * weight).sum() / weight.sum()
    found = recipe.loss(INPUTS, LABELS)
    torch.testing.assert_close(found, expected)
    leaves = list(model.parameters())
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_rotation_in_every_second_step_only() -> None:
    recipe, model, optimizer = ready(size=24, every=2)
    model[3].p = 0.0
    train(recipe, optimizer, 3)
    pretrained, downstream, labels = recipe.methods["dr_tune"].queue.rows
    scale = model[:3](INPUTS).norm(dim=1).mean().detach()
    losses = [
        F.cross_entropy(model[4](calibrated(pretrained, downstream, labels, model[4].weight, scale, rotate)), labels)
        for rotate in (False, True)
    ]
    assert abs(losses[0] - losses[1]) > 1e-4
    found = recipe.loss(INPUTS, LABELS) - F.cross_entropy(model(INPUTS), LABELS)
    torch.testing.assert_close(found, losses[0])


def test_the_classifier_is_better_on_the_pretrained_features_and_does_not_hold_back_the_encoder() -> None:
    def trained(strength):
        recipe, model, optimizer = ready(strength=strength, size=24)
        labels = INPUTS.argmax(1)
        before = features(model)
        train(recipe, optimizer, 100, labels)
        after = features(model)
        return F.cross_entropy(model[4](before), labels).item(), (after - before).norm().item()

    (loss, moved), (plain_loss, plain_moved) = trained(3.0), trained(0.0)
    assert loss < 0.9 * plain_loss
    assert moved > 0.5 * plain_moved


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TikhonError, match="size"):
        tikhon.DRTune(size=0)
    with pytest.raises(TikhonError, match="every"):
        tikhon.DRTune(every=True)
    with pytest.raises(TikhonError, match="linear classifier"):
        ready(at="1")
    model = nn.Sequential(nn.Linear(3, 3), nn.Flatten(1))
    recipe = tikhon.Recipe(tikhon.DRTune())
    recipe.prepare(model)
    recipe.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TikhonError, match=r"\(B, D\)"):
        recipe.loss(torch.zeros(2, 1, 3), torch.zeros(2, dtype=torch.int64))
