"""Confident learning: against loops over samples, a joint that is known, and digits with wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from tikhon import TikhonError
from tikhon.data import load_task
from tikhon.measures.bootstrap import bootstrap_interval
from tikhon.measures.confident_learning import confident_joint, confident_learning


def sample(n: int = 250, classes: int = 4):
    generator = np.random.default_rng(0)
    truth = generator.integers(0, classes, n)
    labels = np.where(generator.uniform(size=n) < 0.25, generator.integers(0, classes, n), truth)
    p = generator.dirichlet(np.full(classes, 0.5), n) + 1.5 * np.eye(classes)[truth]
    return torch.from_numpy(p / p.sum(1, keepdims=True)), torch.from_numpy(labels)


def joint_by_loops(p, y, classes):
    thresholds = [np.mean([p[i][j] for i in range(len(y)) if y[i] == j]) for j in range(classes)]
    found = np.zeros((classes, classes), dtype=int)
    for i in range(len(y)):
        reached = [j for j in range(classes) if p[i][j] >= thresholds[j]]
        if reached:
            found[y[i], max(reached, key=lambda j: p[i][j])] += 1
    return found


def test_the_confident_joint_against_loops() -> None:
    p, y = sample()
    assert confident_joint(p, y).tolist() == joint_by_loops(p.tolist(), y.tolist(), 4).tolist()


def test_joint_noise_matrix_and_suspects_against_loops() -> None:
    p, y = sample()
    found = confident_learning(p, y)
    counts = joint_by_loops(p.tolist(), y.tolist(), 4)
    joint = counts / counts.sum(1, keepdims=True) * np.bincount(y, minlength=4)[:, None] / len(y)
    np.testing.assert_allclose(found.joint, joint, atol=1e-12)
    np.testing.assert_allclose(found.noise_matrix, joint / joint.sum(0), atol=1e-12)
    assert found.share == pytest.approx(1 - np.trace(joint))
    suspects = set()
    for i in range(4):
        members = sorted((k for k in range(len(y)) if y[k] == i), key=lambda k: float(p[k, i]))
        suspects |= set(members[: round(len(y) * (joint[i].sum() - joint[i, i]))])
    assert set(found.suspects.tolist()) == suspects
    assert found.suspects.tolist() == sorted(suspects, key=lambda k: float(p[k, y[k]]))
    np.testing.assert_allclose(found.self_confidence, [float(p[k, y[k]]) for k in range(len(y))])


def test_a_perfect_predictor_finds_every_wrong_label_and_the_true_joint() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 3, 600)
    labels = np.where(generator.uniform(size=600) < 0.2, (truth + 1) % 3, truth)
    p = torch.from_numpy(0.97 * np.eye(3)[truth] + 0.01)
    found = confident_learning(p, torch.from_numpy(labels))
    joint = np.zeros((3, 3))
    np.add.at(joint, (labels, truth), 1 / 600)
    np.testing.assert_allclose(found.joint, joint, atol=1e-12)
    assert sorted(found.suspects.tolist()) == np.flatnonzero(labels != truth).tolist()
    assert found.noise_matrix[1, 0] == pytest.approx(joint[1, 0] / joint[:, 0].sum())


def test_edges() -> None:
    clean = confident_learning(torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4))
    assert clean.share == pytest.approx(0.0, abs=1e-12)
    assert clean.suspects.numel() == 0
    same = torch.full((7, 3), 1 / 3)  # no threshold is missed by rounding
    assert int(confident_joint(same, torch.tensor([0, 0, 0, 0, 1, 1, 2])).sum()) == 7
    unseen = confident_learning(torch.tensor([[0.1, 0.2, 0.7], [0.1, 0.8, 0.1]]), torch.tensor([0, 1]))
    assert unseen.joint[:, 2].sum() == 0.0  # nobody is labelled 2, so no threshold says who is confidently a 2
    assert unseen.noise_matrix.isfinite().all()
    assert confident_learning(torch.ones(3, 1), torch.zeros(3, dtype=torch.long)).share == 0.0


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.4])
def test_on_digits_the_estimate_is_near_and_the_suspects_are_wrong(rate) -> None:
    task = load_task("digits", seed=0, label_noise=rate)
    x, y = task.train.inputs, task.train.target
    probabilities = torch.from_numpy(
        cross_val_predict(LogisticRegression(C=0.1, max_iter=200), x.flatten(1), y, cv=4, method="predict_proba")
    )
    wrong = y != task.clean_target
    found = confident_learning(probabilities, y)
    assert found.share == pytest.approx(float(wrong.double().mean()), abs=0.06)
    if rate:
        assert wrong[found.suspects].double().mean() > 0.75
        assert wrong[found.suspects].sum() > 0.75 * wrong.sum()
        first = found.suspects[: len(found.suspects) // 2]
        assert wrong[first].double().mean() > 0.95


def test_its_share_has_an_interval_by_bootstrap() -> None:
    p, y = sample()
    value, low, high = bootstrap_interval(lambda p, y: confident_learning(p, y).share, p, y, resamples=100)
    assert value == confident_learning(p, y).share
    assert 0.05 < high - low < 0.2


def test_the_plot_is_a_map_of_wrong_labels() -> None:
    found = confident_learning(*sample())
    axes = Figure().add_subplot()
    assert found.plot(axes, names=["a", "b", "c", "d"]) is axes
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(shown[off], 250 * found.joint.numpy()[off])
    assert np.isnan(np.diag(shown)).all()
    assert {text.get_text() for text in axes.texts} == {f"{one:.0f}" for one in shown[off] if round(one)}
    assert axes.get_title() == f"wrong labels {100 * found.share:.1f}%"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c", "d"]
    assert found.joint.diagonal().isfinite().all()  # drawing leaves the result as it was


def test_wrong_input_is_refused() -> None:
    p, y = sample()
    for measure in (confident_joint, confident_learning):
        with pytest.raises(TikhonError, match="softmax"):
            measure(2 * p, y)
        with pytest.raises(TikhonError, match=r"\[0, 4\)"):
            measure(p, y + 1)
