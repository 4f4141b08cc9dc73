"""MNIST-1D, generated: ten one-dimensional digits that a linear model cannot tell apart and a small network can.

Greydanus, "Scaling down deep learning", 2020, arXiv 2011.14439. A digit is drawn by 12 points; it is stretched,
scaled, shifted in a window of 72 points whose background is correlated noise, sheared, and sampled at 40 points.
The recipe and its constants are the paper's; the draws are ours, so single samples differ from the published file.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The pen's position along each digit, drawn from top to bottom (the data set's definition).
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
POINTS = 12
PADDING = (36, 60)  # points of background behind the digit, both ends included
WINDOW = POINTS + PADDING[1]
SCALE = 0.4  # height varies by plus or minus half of this
TRANSLATIONS = 48  # shifts 0 .. 47
CORRELATED_NOISE, CORRELATION = 0.25, 2.0  # of the background: standard deviation before smoothing, smoothing width
WHITE_NOISE = 0.02
SHEAR = 0.75  # slope over the window varies by plus or minus half of this
LENGTH = 40


def mnist1d(samples: int, generator: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
    """Signals (samples, 40) and labels (samples,), equally many of each class (as far as `samples` allows)."""
    labels = np.arange(samples, dtype=np.int64) % len(TEMPLATES)
    # Stretch: the digit with p points of background behind it fills the window, so less background is a wider digit.
    padding = generator.integers(PADDING[0], PADDING[1], size=(samples, 1), endpoint=True)
    positions = np.linspace(0, 1, WINDOW) * (POINTS + padding - 1)
    background = positions >= POINTS
    signals = resample(_templates()[labels], np.minimum(positions, POINTS))
    signals *= 1 + SCALE * (generator.random((samples, 1)) - 0.5)
    shift = generator.integers(TRANSLATIONS, size=(samples, 1))
    rolled = (np.arange(WINDOW) - shift) % WINDOW
    signals, background = np.take_along_axis(signals, rolled, 1), np.take_along_axis(background, rolled, 1)
    signals = np.where(background, _correlated_noise(samples, generator), signals)
    signals += WHITE_NOISE * generator.standard_normal(signals.shape)
    signals -= SHEAR * (generator.random((samples, 1)) - 0.5) * np.linspace(-0.5, 0.5, WINDOW)
    return resample(signals, np.broadcast_to(np.linspace(0, WINDOW - 1, LENGTH), (samples, LENGTH))), labels


def resample(signals: Array, positions: Array) -> Array:
    """Linear interpolation: signals (N, L) read at fractional positions (N, M) in [0, L - 1]; returns (N, M)."""
    left = np.minimum(positions.astype(np.int64), signals.shape[1] - 2)
    fraction = positions - left
    here, there = np.take_along_axis(signals, left, 1), np.take_along_axis(signals, left + 1, 1)
    mixed: Array = here + fraction * (there - here)
    return mixed


def _templates() -> Array:
    """(10, 13): whitened, starting at 0, followed by the first point of the background, which is 0."""
    points = np.array(TEMPLATES, dtype=np.float64)
    points = (points - points.mean(1, keepdims=True)) / points.std(1, keepdims=True)
    points = (points - points[:, :1]) / 6
    return np.pad(points, ((0, 0), (0, 1)))


def _correlated_noise(samples: int, generator: np.random.Generator) -> Array:
    """(samples, WINDOW): white noise smoothed by a Gaussian, drawn wider than the window so that its ends are alike."""
    radius = int(4 * CORRELATION)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / CORRELATION) ** 2)
    white = CORRELATED_NOISE * generator.standard_normal((samples, WINDOW + 2 * radius))
    smooth: Array = np.lib.stride_tricks.sliding_window_view(white, len(kernel), axis=1) @ (kernel / kernel.sum())
    return smooth
