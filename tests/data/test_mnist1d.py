import numpy as np
from sklearn.linear_model import LogisticRegression

from tikhon.data.mnist1d import TEMPLATES, mnist1d, resample


def test_resampling_is_linear_interpolation():
    rng = np.random.default_rng(0)
    signals, positions = rng.normal(size=(5, 9)), rng.uniform(0, 8, size=(5, 20))
    positions[:, 0], positions[:, 1] = 0, 8
    expected = [np.interp(p, np.arange(9), s) for s, p in zip(signals, positions, strict=True)]
    np.testing.assert_allclose(resample(signals, positions), expected)


def test_the_classes_are_balanced_and_the_draws_follow_the_generator():
    signals, labels = mnist1d(500, np.random.default_rng(1))
    assert signals.shape == (500, 40)
    assert np.bincount(labels).tolist() == [50] * 10
    again, _ = mnist1d(500, np.random.default_rng(1))
    other, _ = mnist1d(500, np.random.default_rng(2))
    assert np.array_equal(signals, again)
    assert not np.allclose(signals, other)


def test_stretched_and_shifted_digits_are_found_in_the_signals():
    """Undo the recipe by search: compare every signal with every digit at every width and place, up to a line."""
    signals, labels = mnist1d(200, np.random.default_rng(0))
    line = np.linalg.qr(np.stack([np.ones(40), np.arange(40)], axis=1))[0]  # shear and offset
    best = np.zeros((200, 10))
    for digit, points in enumerate(TEMPLATES):
        for padding in range(36, 61, 2):
            drawn = np.interp(np.linspace(0, 11 + padding, 72), np.arange(13), [*(np.array(points) - 5), 0])
            for shift in range(48):
                shape = np.interp(np.linspace(0, 71, 40), np.arange(72), np.roll(drawn, shift))
                shape -= line @ (line.T @ shape)
                score = (signals - signals @ line @ line.T) @ shape / np.linalg.norm(shape)
                best[:, digit] = np.maximum(best[:, digit], score)
    assert (best.argmax(1) == labels).mean() > 0.6


def test_a_linear_model_does_as_badly_as_the_paper_says():
    """Greydanus 2020, table 1: logistic regression 32%, chance 10%."""
    signals, labels = mnist1d(5000, np.random.default_rng(0))
    model = LogisticRegression(max_iter=500).fit(signals[:4000], labels[:4000])
    assert 0.25 < model.score(signals[4000:], labels[4000:]) < 0.42
