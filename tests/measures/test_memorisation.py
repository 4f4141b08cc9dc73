"""Memorisation: by a loop over models, known truths, scipy's intervals, a network that learns labels by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.figure import Figure

from tikhon import TikhonError
from tikhon.measures.memorisation import memorisation, memorisation_scores, wrong_labels_fitted


def runs(models: int = 60, samples: int = 25):
    generator = torch.Generator().manual_seed(0)
    in_train = torch.rand(models, samples, generator=generator) < 0.7
    correct = torch.rand(models, samples, generator=generator) < torch.where(in_train, 0.9, 0.4)
    return correct, in_train


def test_scores_are_those_of_a_loop_over_models() -> None:
    correct, in_train = runs()
    for sample, score in enumerate(memorisation_scores(correct, in_train).tolist()):
        inside = [bool(correct[r, sample]) for r in range(60) if in_train[r, sample]]
        outside = [bool(correct[r, sample]) for r in range(60) if not in_train[r, sample]]
        assert score == pytest.approx(np.mean(inside) - np.mean(outside))


def test_intervals_are_newcombes_and_counts_those_of_models() -> None:
    correct, in_train = runs()
    found = memorisation(correct, in_train)
    assert torch.equal(found.trained, in_train.sum(0))
    assert torch.equal(found.held_out, (~in_train).sum(0))
    for i in range(25):
        shares, ends = [], []
        for mask in (in_train[:, i], ~in_train[:, i]):
            test = scipy.stats.binomtest(int(correct[mask, i].sum()), int(mask.sum())).proportion_ci(method="wilson")
            shares.append(float(correct[mask, i].double().mean()))
            ends.append(test)
        p, q = shares
        low = p - q - math.hypot(p - ends[0].low, ends[1].high - q)
        assert float(found.low[i]) == pytest.approx(low)
        assert found.low[i] <= found.scores[i] <= found.high[i]


def test_what_was_never_or_always_trained_on_has_no_score() -> None:
    correct, in_train = runs()
    in_train[:, 0], in_train[:, 1] = True, False
    found = memorisation(correct, in_train)
    assert found.scores[:2].isnan().all()
    assert found.scores[2:].isfinite().all()


def test_labels_that_only_a_nearest_neighbour_knows_by_heart_have_the_highest_scores() -> None:
    """Two clusters, one-nearest-neighbour models on random 70%; five labels are wrong."""
    generator = torch.Generator().manual_seed(1)
    x = torch.cat([torch.randn(40, 2, generator=generator), torch.randn(40, 2, generator=generator) + 6.0])
    y = torch.arange(80) // 40
    wrong = torch.tensor([3, 17, 28, 55, 71])
    y[wrong] = 1 - y[wrong]
    in_train = torch.stack([torch.randperm(80, generator=generator) < 56 for _ in range(80)])
    correct = torch.stack([y[mask][torch.cdist(x, x[mask]).argmin(1)] == y for mask in in_train])
    scores = memorisation_scores(correct, in_train)
    assert set(scores.topk(5).indices.tolist()) == set(wrong.tolist())
    assert scores[wrong].min() > 0.8
    assert scores.median() == 0.0


def test_wrong_labels_are_counted_by_what_is_said_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(4, (200,), generator=generator)
    given = torch.where(torch.rand(200, generator=generator) < 0.3, (clean + 1) % 4, clean)
    says = torch.randint(4, (200,), generator=generator)
    found = wrong_labels_fitted(says, given, clean)
    wrong = [i for i in range(200) if given[i] != clean[i]]
    assert found.count == len(wrong)
    fitted = sum(int(says[i] == given[i]) for i in wrong)
    resisted = sum(int(says[i] == clean[i]) for i in wrong)
    assert found.fitted[0] == pytest.approx(fitted / len(wrong))
    assert found.resisted[0] == pytest.approx(resisted / len(wrong))
    assert found.other[0] == pytest.approx(1 - (fitted + resisted) / len(wrong))
    interval = scipy.stats.binomtest(fitted, len(wrong)).proportion_ci(method="wilson")
    assert found.fitted[1:] == pytest.approx((interval.low, interval.high))


def test_plots_draw_the_numbers() -> None:
    correct, in_train = runs()
    in_train[:, 0] = True
    axes = memorisation(correct, in_train).plot(Figure().add_subplot())
    assert sum(bar.get_height() for bar in axes.patches) == 24
    labels = torch.tensor([0, 1, 1])
    found = wrong_labels_fitted(torch.tensor([0, 1, 2]), labels, torch.zeros(3, dtype=torch.int64))
    bars = found.plot(Figure().add_subplot()).patches
    assert [bar.get_height() for bar in bars] == [0.5, 0.0, 0.5]
    assert found.plot().get_ylabel() == "share of 2 samples"


def test_wrong_input_is_refused() -> None:
    correct, in_train = runs()
    with pytest.raises(TikhonError, match=r"\(R, N\), models by samples, not \(60, 24\)"):
        memorisation_scores(correct[:, :24], in_train)
    with pytest.raises(TikhonError, match="must be bool"):
        memorisation(correct.float(), in_train)
    with pytest.raises(TikhonError, match="level"):
        memorisation(correct, in_train, level=1.0)
    labels = torch.tensor([0, 1])
    with pytest.raises(TikhonError, match="nothing wrong"):
        wrong_labels_fitted(labels, labels, labels)
    with pytest.raises(TikhonError, match="differ in length: 2, 1 and 2"):
        wrong_labels_fitted(labels, labels[:1], labels)
    with pytest.raises(TikhonError, match="given are torch"):
        wrong_labels_fitted(labels, labels.float(), labels)
