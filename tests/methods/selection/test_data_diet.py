"""Data diet: the selection, and that only the selected samples train."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.methods.selection.data_diet import hardest

SAMPLES = 12
INPUTS = torch.randn(SAMPLES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(SAMPLES) % 3
INDEX = torch.arange(SAMPLES)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def attached(*methods, model=None, rate=0.5, **options):
    model = network() if model is None else model
    recipe = tikhon.Recipe(*methods, **options)
    recipe.prepare(model, samples=SAMPLES)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    recipe.attach(optimizer, epochs=4)
    return recipe, model, optimizer


def step(recipe, optimizer, index, inputs=INPUTS, labels=LABELS, **options):
    optimizer.zero_grad()
    loss = recipe.loss(inputs[index], labels[index], index=index, **options)
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_hardest_against_sorting():
    scores = torch.tensor([3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0, 8.0, 7.0])
    assert hardest(scores, 0.3).tolist() == [4, 8, 9]
    assert hardest(scores, 0.3, 0.2).tolist() == [6, 7, 9]
    assert hardest(scores, 0.8, 0.2).tolist() == [0, 1, 2, 3, 5, 6, 7, 9]
    assert hardest(scores, 1.0).tolist() == list(range(10))
    assert hardest(scores, 0.01).tolist() == [4]
    assert hardest(torch.zeros(4), 0.5).tolist() == [2, 3]
    assert hardest(torch.zeros(1), 0.4, 0.6).tolist() == [0]


def test_given_scores_train_on_the_kept_samples_alone():
    """Whole batches: the same weights as plain training on the subset."""
    scores = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(2))
    recipe, model, optimizer = attached(tikhon.DataDiet(keep=0.5, scores=scores, skip_hardest=0.25))
    kept = recipe.methods["data_diet"].kept()
    assert kept.tolist() == sorted(scores.argsort()[3:9].tolist())
    plain = network()
    other = torch.optim.SGD(plain.parameters(), lr=0.5)
    for _ in range(3):
        step(recipe, optimizer, INDEX)
        other.zero_grad()
        F.cross_entropy(plain(INPUTS[kept]), LABELS[kept]).backward()
        other.step()
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_batch_of_which_nothing_is_kept_has_loss_zero():
    recipe, model, optimizer = attached(tikhon.DataDiet(keep=0.5, scores=torch.arange(12.0)))
    assert step(recipe, optimizer, INDEX[:6]) == 0.0
    assert all(not parameter.grad.any() for parameter in model.parameters())
    assert step(recipe, optimizer, INDEX[6:]) > 0.0


def test_it_multiplies_the_callers_weights():
    recipe, model, optimizer = attached(tikhon.DataDiet(keep=0.5, scores=torch.arange(12.0)))
    weight = torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    losses = F.cross_entropy(model(INPUTS), LABELS, reduction="none")
    expected = (losses * weight)[6:].sum() / weight[6:].sum()
    torch.testing.assert_close(step(recipe, optimizer, INDEX, weight=weight), expected.detach())


def test_own_scores_are_the_mean_over_the_first_epochs():
    method = tikhon.DataDiet(keep=0.5, score_epochs=2)
    recipe, model, optimizer = attached(method)
    seen = []
    for _ in range(2):
        for index in INDEX.split(5):
            with torch.no_grad():
                error = model(INPUTS[index]).softmax(1) - F.one_hot(LABELS[index], 3)
            seen.append(error.norm(dim=1))
            step(recipe, optimizer, index)
        with pytest.raises(tikhon.TikhonError, match="has not selected yet"):
            method.kept()
        recipe.end_epoch()
    expected = torch.cat(seen).reshape(2, 12).mean(0)
    torch.testing.assert_close(method.memory.table[:, 0], expected)
    assert method.kept().tolist() == sorted(expected.argsort()[6:].tolist())
    step(recipe, optimizer, INDEX)
    torch.testing.assert_close(method.memory.table[:, 0], expected)  # scored no more


def test_mixing_scores_the_clean_inputs():
    method = tikhon.DataDiet(score_epochs=1)
    recipe, model, optimizer = attached(method, tikhon.MixUp(), rate=0.0)
    step(recipe, optimizer, INDEX)
    expected = (model(INPUTS).softmax(1) - F.one_hot(LABELS, 3)).norm(dim=1)
    torch.testing.assert_close(method.memory.table[:, 0], expected.detach())


def test_samples_never_scored_are_left_out():
    """Ids of the full data set, of which a split trains."""
    method = tikhon.DataDiet(keep=0.5, score_epochs=1)
    recipe, _, optimizer = attached(method)
    step(recipe, optimizer, INDEX[2:10])
    recipe.end_epoch()
    assert len(method.kept()) == 4
    assert set(method.kept().tolist()) <= set(range(2, 10))


def test_the_selection_is_saved():
    method = tikhon.DataDiet(score_epochs=1)
    recipe, _, optimizer = attached(method)
    step(recipe, optimizer, INDEX)
    recipe.end_epoch()
    fresh = tikhon.DataDiet(score_epochs=1)
    resumed, _, _ = attached(fresh)
    resumed.load_state_dict(recipe.state_dict())
    assert torch.equal(fresh.kept(), method.kept())


def test_given_scores_serve_regression():
    method = tikhon.DataDiet(keep=0.5, scores=torch.arange(12.0))
    recipe, model, optimizer = attached(method, base=F.mse_loss)
    values = INPUTS[:, :3]
    expected = F.mse_loss(model(INPUTS[6:]), values[6:])
    torch.testing.assert_close(step(recipe, optimizer, INDEX, labels=values), expected.detach())


def test_wrong_labels_rank_as_the_hardest():
    """On digits with 10% wrong labels, EL2N of the first epochs finds them."""
    images, digits = load_digits(return_X_y=True)
    inputs, labels = torch.from_numpy(images).float()[:1000] / 16.0, torch.from_numpy(digits)[:1000]
    wrong = torch.zeros(1000, dtype=torch.bool)
    wrong[torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:100]] = True
    noisy = torch.where(wrong, (labels + 3) % 10, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    method = tikhon.DataDiet(keep=0.8, score_epochs=5, skip_hardest=0.1)
    tikhon.fit(model, tikhon.Recipe(method), (inputs, noisy), epochs=5, batch_size=50)
    assert roc_auc_score(wrong, method.memory.table[:, 0]) > 0.95
    assert wrong[method.kept()].sum() < 30  # 80 by chance


def test_errors():
    for keep in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(tikhon.TikhonError, match="keep is the share"):
            tikhon.DataDiet(keep=keep)
    for skip in (-0.1, 0.6, float("nan")):
        with pytest.raises(tikhon.TikhonError, match="skip_hardest must be in"):
            tikhon.DataDiet(keep=0.5, skip_hardest=skip)
    with pytest.raises(tikhon.TikhonError, match="score_epochs must be a positive integer"):
        tikhon.DataDiet(score_epochs=0)
    with pytest.raises(tikhon.TikhonError, match="finite numbers"):
        tikhon.DataDiet(scores=torch.tensor([0.0, float("nan")]))
    for scores in ([0.0], torch.zeros(2, 2), torch.zeros(0)):
        with pytest.raises(tikhon.TikhonError, match="one score a sample"):
            tikhon.DataDiet(scores=scores)
    recipe, _, optimizer = attached(tikhon.DataDiet(scores=torch.zeros(5)))
    with pytest.raises(tikhon.TikhonError, match="5 scores; prepare has samples=12"):
        step(recipe, optimizer, INDEX)
    recipe, _, _ = attached(tikhon.DataDiet(score_epochs=1))
    with pytest.raises(tikhon.TikhonError, match="no step was made"):
        recipe.end_epoch()
    segmenter = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 1)).double()
    recipe, _, optimizer = attached(tikhon.DataDiet(score_epochs=1), model=segmenter)
    with pytest.raises(tikhon.TikhonError, match="one label a sample"):
        step(recipe, optimizer, INDEX, labels=LABELS[:, None].expand(-1, 4))
