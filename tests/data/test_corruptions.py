import numpy as np
import pytest
import torch
from scipy import ndimage

from tikhon.core.errors import TikhonError
from tikhon.data import (
    asymmetric_noise,
    blur,
    gaussian_noise,
    imbalance,
    rotate,
    symmetric_noise,
    value_noise,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LABELS = torch.arange(5000) % 10
IMAGES = torch.rand(3, 2, 9, 9, generator=generator(1))


@pytest.mark.parametrize("rate", [0.0, 0.1234, 0.4, 1.0])
@pytest.mark.parametrize("noise", [symmetric_noise, asymmetric_noise])
def test_exactly_the_asked_share_of_labels_becomes_wrong(noise, rate):
    before = LABELS.clone()
    noisy = noise(LABELS, rate, 10, generator())
    assert int((noisy != LABELS).sum()) == round(rate * 5000)
    assert noisy.min() >= 0
    assert noisy.max() <= 9
    assert torch.equal(LABELS, before)


def test_symmetric_noise_spreads_evenly_over_the_other_classes():
    noisy = symmetric_noise(LABELS, 0.9, 10, generator())
    counts = torch.zeros(10, 10).index_put_((LABELS, noisy), torch.tensor(1.0), accumulate=True)
    off_diagonal = counts[~torch.eye(10, dtype=torch.bool)]
    # 4,500 wrong labels over 90 cells: 50 each; chi-squared with about 89 degrees of freedom stays under 150.
    assert float(((off_diagonal - 50) ** 2 / 50).sum()) < 150


def test_asymmetric_noise_moves_to_the_next_class_only():
    noisy = asymmetric_noise(LABELS, 0.3, 10, generator())
    assert set(((noisy - LABELS) % 10).tolist()) == {0, 1}
    assert 9 in LABELS[noisy == 0].tolist()


def test_noise_depends_on_its_generator_alone():
    first = symmetric_noise(LABELS, 0.4, 10, generator(3))
    torch.rand(7)
    assert torch.equal(first, symmetric_noise(LABELS, 0.4, 10, generator(3)))
    assert not torch.equal(first, symmetric_noise(LABELS, 0.4, 10, generator(4)))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(rate):
    with pytest.raises(TikhonError, match=r"\[0, 1\]"):
        symmetric_noise(LABELS, rate, 10, generator())


def test_one_class_cannot_have_label_noise():
    with pytest.raises(TikhonError, match="two classes"):
        symmetric_noise(torch.zeros(5, dtype=torch.long), 0.5, 1, generator())


def test_value_noise_has_the_asked_deviation_in_every_column():
    values = torch.zeros(20000, 2)
    noisy = value_noise(values, torch.tensor([0.5, 2.0]), generator())
    assert noisy.std(0).tolist() == pytest.approx([0.5, 2.0], rel=0.03)
    assert noisy.mean(0).abs().max() < 0.06


def test_imbalance_follows_the_exponential_profile():
    kept = imbalance(LABELS, 100, generator())
    sizes = np.bincount(LABELS[kept].numpy())
    # By hand: 500 samples a class, 500 * 100 ** (-c / 9).
    assert sizes.tolist() == [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]
    assert len(set(kept.tolist())) == len(kept)
    assert not torch.equal(kept, imbalance(LABELS, 100, generator(1)))


def test_imbalance_takes_classes_of_unequal_size_into_account():
    labels = torch.tensor([0] * 30 + [1] * 100)
    assert torch.bincount(labels[imbalance(labels, 3, generator())]).tolist() == [30, 10]
    labels = torch.tensor([0] * 100 + [1] * 7)
    assert torch.bincount(labels[imbalance(labels, 10, generator())]).tolist() == [70, 7]


@pytest.mark.parametrize("ratio", [0.5, float("nan"), float("inf")])
def test_a_ratio_below_one_is_refused(ratio):
    with pytest.raises(TikhonError, match="at least 1"):
        imbalance(LABELS, ratio, generator())


def test_a_ratio_that_empties_a_class_is_refused():
    with pytest.raises(TikhonError, match="at most 500"):
        imbalance(LABELS, 2000, generator())


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_quarter_turns_are_exact(quarter_turns):
    expected = torch.rot90(IMAGES, quarter_turns, dims=(2, 3))
    torch.testing.assert_close(rotate(IMAGES, 90 * quarter_turns), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(11, 11), (8, 14)])
def test_rotation_agrees_with_scipy(shape):
    image = np.zeros(shape, dtype=np.float64)
    image[2:-2, 2:-2] = np.random.default_rng(0).random((shape[0] - 4, shape[1] - 4))
    # At the edge scipy and torch treat the outside differently; the middle is the same bilinear formula.
    ours = rotate(torch.from_numpy(image)[None, None], 25)[0, 0].numpy()
    theirs = ndimage.rotate(image, 25, reshape=False, order=1)
    np.testing.assert_allclose(ours[2:-2, 2:-2], theirs[2:-2, 2:-2], atol=1e-9)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
def test_blur_agrees_with_scipy(sigma):
    radius = int(np.ceil(3 * sigma))
    images = IMAGES.double()
    expected = ndimage.gaussian_filter(
        images.numpy(), (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, radius, radius)
    )
    np.testing.assert_allclose(blur(images, sigma).numpy(), expected, atol=1e-9)
    signals = images.flatten(2)
    expected = ndimage.gaussian_filter1d(signals.numpy(), sigma, mode="nearest", radius=radius)
    np.testing.assert_allclose(blur(signals, sigma).numpy(), expected, atol=1e-9)


def test_gaussian_noise_has_the_asked_deviation_and_leaves_its_input_alone():
    inputs = torch.ones(2000, 20)
    noisy = gaussian_noise(inputs, 0.3, generator())
    assert float((noisy - inputs).std()) == pytest.approx(0.3, rel=0.03)
    assert torch.equal(inputs, torch.ones(2000, 20))
