"""SNR distance: variances written out, what it does not depend on, and an anchor without any signal."""

from __future__ import annotations

import torch

from tikhon.math.distances import snr_distances


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_variance_of_the_difference_over_that_of_the_anchor() -> None:
    anchors, others = 3.0 + drawn(4, 6), 2.0 * drawn(5, 6, seed=1)
    expected = (others - anchors[:, None]).var(2) / anchors.var(1, keepdim=True)
    torch.testing.assert_close(snr_distances(anchors, others), expected)
    assert not torch.allclose(snr_distances(others, anchors).T, expected)


def test_scale_of_all_and_offset_of_each_do_not_matter() -> None:
    anchors, others = drawn(4, 6), drawn(5, 6, seed=1)
    moved = snr_distances(7.0 * anchors + drawn(4, 1, seed=2), 7.0 * others + drawn(5, 1, seed=3))
    torch.testing.assert_close(moved, snr_distances(anchors, others))


def test_an_anchor_without_signal_is_far_and_has_a_finite_gradient() -> None:
    anchors = torch.ones(1, 6, dtype=torch.float64).requires_grad_()
    distance = snr_distances(anchors, drawn(2, 6))
    assert bool((distance > 1e6).all())
    distance.sum().backward()
    assert anchors.grad is not None
    assert bool(anchors.grad.isfinite().all())
