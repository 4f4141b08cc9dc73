"""The loss mixture: against EM written with scipy, mixtures that are known, and digits with wrong labels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.figure import Figure

import tikhon
from tikhon import TikhonError
from tikhon.data import build_model, load_task
from tikhon.measures.difficulty import training_dynamics
from tikhon.measures.loss_mixture import ROUNDS, loss_mixture


def losses_of(disbelief) -> torch.Tensor:
    return -torch.log1p(-torch.as_tensor(disbelief))


def mixture(n: int, wrong: float, seed: int = 0):
    generator = np.random.default_rng(seed)
    bad = generator.uniform(size=n) < wrong
    return losses_of(np.where(bad, generator.beta(8, 2, n), generator.beta(2, 12, n))), torch.from_numpy(bad)


def test_it_is_em_written_with_scipy() -> None:
    losses, _ = mixture(300, 0.3)
    x = 1 - np.exp(-losses.numpy())
    a, b, w = np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([0.5, 0.5])
    for _ in range(ROUNDS):
        density = np.stack([w[k] * scipy.stats.beta.pdf(x, a[k], b[k]) for k in range(2)])
        belongs = density / density.sum(0)
        for k in range(2):
            mean = np.average(x, weights=belongs[k])
            variance = np.average((x - mean) ** 2, weights=belongs[k])
            a[k] = mean * (mean * (1 - mean) / variance - 1)
            b[k] = a[k] * (1 - mean) / mean
        w = belongs.mean(1)
    found = loss_mixture(losses, resamples=2)
    for mine, other in ((found.alpha, a), (found.beta, b), (found.weight, w)):
        np.testing.assert_allclose(mine, other, rtol=1e-5)
    density = np.stack([w[k] * scipy.stats.beta.pdf(x, a[k], b[k]) for k in range(2)])
    np.testing.assert_allclose(found.posterior, density[1] / density.sum(0), atol=1e-6)


def test_a_known_mixture_is_found_again_and_the_posterior_is_calibrated() -> None:
    losses, bad = mixture(6000, 0.25)
    found = loss_mixture(losses, resamples=20)
    assert found.share[0] == pytest.approx(float(bad.double().mean()), abs=0.01)
    np.testing.assert_allclose(found.alpha, [2, 8], rtol=0.15)
    np.testing.assert_allclose(found.beta, [12, 2], rtol=0.15)
    assert float(found.posterior.mean()) == pytest.approx(found.share[0], abs=1e-3)
    assert float((found.posterior - bad.double()).square().mean()) < 0.02
    assert bad[found.suspects].double().mean() > 0.95
    assert (found.posterior[found.suspects].diff() <= 0).all()


def test_the_interval_covers_the_share_of_a_known_mixture() -> None:
    covered = 0
    for seed in range(12):
        losses, _ = mixture(250, 0.3, seed)
        _, low, high = loss_mixture(losses, resamples=25).share
        covered += low <= 0.3 <= high
    assert covered >= 10


def test_epochs_are_averaged_as_probabilities() -> None:
    losses, _ = mixture(100, 0.3)
    several = torch.stack([losses, losses + 0.5])
    found = loss_mixture(several, resamples=2)
    torch.testing.assert_close(found.disbelief, 1 - (torch.exp(-losses) + torch.exp(-losses - 0.5)) / 2)


def test_where_all_labels_are_believed_none_is_wrong() -> None:
    generator = np.random.default_rng(0)
    found = loss_mixture(losses_of(generator.beta(1, 12, 500)), resamples=20)
    assert found.share == (0.0, 0.0, 0.0)
    assert not found.posterior.any()
    assert found.suspects.numel() == 0
    texts = found.plot(Figure().add_subplot()).get_legend().get_texts()
    assert not any("wrong" in text.get_text() for text in texts)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.4])
def test_on_digits_the_estimate_is_near_and_the_suspects_are_wrong(rate) -> None:
    task = load_task("digits", seed=0, label_noise=rate)
    x, y = task.train.inputs, task.train.target
    wrong = y != task.clean_target
    scores = []

    def record(model: torch.nn.Module) -> float:
        scores.append(model(x))
        return 0.0

    def sgd(parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)

    model = build_model("mlp", task, seed=0)
    tikhon.fit(model, tikhon.Recipe(), (x, y), epochs=20, batch_size=64, optimizer=sgd, metrics={"scores": record})
    found = loss_mixture(training_dynamics(scores, y).loss[5:], resamples=10)
    assert found.share[0] == pytest.approx(float(wrong.double().mean()), abs=0.1)
    if rate:
        assert found.share[0] > 0.05
        assert wrong[found.suspects].sum() > 0.9 * wrong.sum()
        most = found.suspects[: int(wrong.sum()) // 2]
        assert wrong[most].double().mean() > 0.95


def test_before_anything_is_learned_it_says_so() -> None:
    with pytest.raises(TikhonError, match="give the losses of later epochs"):
        loss_mixture(losses_of(np.random.default_rng(0).beta(30, 5, 200)))


def test_the_plot_has_the_samples_and_two_densities() -> None:
    losses, _ = mixture(400, 0.3)
    found = loss_mixture(losses, resamples=2)
    axes = Figure().add_subplot()
    assert found.plot(axes) is axes
    heights, _ = np.histogram(found.disbelief, bins=40, range=(0, 1), density=True)
    np.testing.assert_allclose([one.get_height() for one in axes.patches], heights)
    for row, line in enumerate(axes.lines):
        x, y = line.get_data()
        expected = float(found.weight[row]) * scipy.stats.beta.pdf(x, float(found.alpha[row]), float(found.beta[row]))
        np.testing.assert_allclose(y, expected, rtol=1e-6)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == [f"right {100 * found.weight[0]:.1f}%", f"wrong {100 * found.weight[1]:.1f}%"]


def test_wrong_input_is_refused() -> None:
    for losses in (torch.zeros(1), torch.zeros(0, 3), torch.zeros(2, 2, 2)):
        with pytest.raises(TikhonError, match=r"\(n,\) or \(E, n\)"):
            loss_mixture(losses)
    for losses in (torch.tensor([0.1, -0.1]), torch.tensor([0.1, float("nan")])):
        with pytest.raises(TikhonError, match="cross-entropies"):
            loss_mixture(losses)
