"""Training dynamics against loops over epochs and samples, and that they find wrong labels in digits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

import tikhon
from tikhon import TikhonError
from tikhon.data import build_model, load_task
from tikhon.measures.difficulty import below_fake_margins, forgetting_events, training_dynamics

EPOCHS, SAMPLES, CLASSES = 7, 20, 4
SCORES = 2.0 * torch.randn(EPOCHS, SAMPLES, CLASSES, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(SAMPLES) % CLASSES


def test_against_loops() -> None:
    seen = training_dynamics(SCORES, LABELS)
    scores, labels = SCORES.double().numpy(), LABELS.numpy()
    for i in range(SAMPLES):
        own = scores[:, i, labels[i]]
        others = np.delete(scores[:, i], labels[i], axis=1)
        probability = np.exp(own) / np.exp(scores[:, i]).sum(1)
        assert seen.area_under_margin[i].item() == pytest.approx(np.mean(own - others.max(1)), abs=1e-5)
        assert seen.confidence[i].item() == pytest.approx(probability.mean(), abs=1e-6)
        assert seen.variability[i].item() == pytest.approx(probability.std(), abs=1e-6)
        right = own > others.max(1)
        forgotten = sum(bool(before and not after) for before, after in pairwise(right))
        assert seen.forgetting_events[i].item() == forgotten
        assert seen.never_learned[i].item() == (not right.any())
        np.testing.assert_allclose(seen.loss[:, i], -np.log(probability), rtol=1e-5)
    assert seen.forgetting_events.max() > 1


def test_an_epoch_at_a_time_is_the_same() -> None:
    seen, other = training_dynamics(SCORES, LABELS), training_dynamics((one for one in SCORES), LABELS)
    for name in ("loss", "margin", "right"):
        assert torch.equal(getattr(seen, name), getattr(other, name))
        assert getattr(seen, name).shape == (EPOCHS, SAMPLES)


def test_one_epoch_forgets_nothing() -> None:
    assert forgetting_events(torch.ones(1, 3, dtype=torch.bool)).tolist() == [0, 0, 0]


def test_samples_below_the_fake_ones() -> None:
    areas = torch.tensor([-3.0, -2.0, -1.0, 0.0, 5.0, -1.5])
    fake = torch.tensor([False, True, True, False, False, False])
    assert below_fake_margins(areas, fake, 100.0).tolist() == [True, False, False, False, False, True]
    assert below_fake_margins(areas, fake, 0.0).tolist() == [True, False, False, False, False, False]
    assert below_fake_margins(areas, fake, 25.0).tolist() == [True, False, False, False, False, False]
    assert below_fake_margins(areas, fake, 75.0).tolist() == [True, False, False, False, False, True]


def test_wrong_labels_stand_out_on_digits() -> None:
    task = load_task("digits", seed=0, label_noise=0.2)
    inputs, labels = task.train.inputs, task.train.target
    wrong = labels != task.clean_target
    fake = torch.rand(len(labels), generator=torch.Generator().manual_seed(0)) < 1 / 11
    given = torch.where(fake, 10, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(build_model("mlp", task, seed=0), torch.nn.ReLU(), torch.nn.Linear(10, 11))
    scores = []

    def record(deployed: torch.nn.Module) -> float:
        scores.append(deployed(inputs))
        return 0.0

    tikhon.fit(model, tikhon.Recipe(), (inputs, given), epochs=12, batch_size=64, metrics={"scores": record})
    seen = training_dynamics(scores, given)
    area = seen.area_under_margin
    assert roc_auc_score(wrong[~fake], -area[~fake]) > 0.93
    assert seen.never_learned[wrong].double().mean() > 0.4 > 0.05 > seen.never_learned[~wrong & ~fake].double().mean()
    found = below_fake_margins(area, fake)
    assert found[wrong & ~fake].double().mean() > 0.8
    assert found[~wrong & ~fake].double().mean() < 0.25


def test_the_plot_is_the_data_map() -> None:
    seen = training_dynamics(SCORES, LABELS)
    axes = Figure().add_subplot()
    assert seen.plot(axes) is axes
    dots = axes.collections[0]
    np.testing.assert_allclose(dots.get_offsets(), torch.stack([seen.variability, seen.confidence], 1))
    np.testing.assert_allclose(dots.get_array(), seen.right.double().mean(0))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("variability", "confidence in the label")


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TikhonError, match=r"scores of epoch 0 are \(20, 4, 1\)"):
        training_dynamics([SCORES[0][..., None]], LABELS)
    with pytest.raises(TikhonError, match=r"scores of epoch 1 are \(19, 4\)"):
        training_dynamics([SCORES[0], SCORES[1][1:]], LABELS)
    with pytest.raises(TikhonError, match=r"labels must lie in \[0, 3\)"):
        training_dynamics(SCORES[..., :3], LABELS)
    with pytest.raises(TikhonError, match="epoch 2 hold NaN"):
        training_dynamics([SCORES[0], SCORES[1], SCORES[2] / 0.0], LABELS)
    with pytest.raises(TikhonError, match="no scores"):
        training_dynamics([], LABELS)
    with pytest.raises(TikhonError, match=r"\(E, N\) bool"):
        forgetting_events(torch.ones(3, dtype=torch.bool))
    with pytest.raises(TikhonError, match="one True at least"):
        below_fake_margins(torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(TikhonError, match="percentile"):
        below_fake_margins(torch.zeros(2), torch.ones(2, dtype=torch.bool), 101.0)
