"""Duplicates: planted copies are found and no others, by a search over all pairs, with scipy's interval."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from matplotlib.figure import Figure

from tikhon import TikhonError
from tikhon.measures.duplicates import exact_duplicates, near_duplicates


def sets(copies: float = 0.0):
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(300, 2, 5, generator=generator), torch.randn(80, 2, 5, generator=generator)
    test[[4, 9, 60]] = train[[100, 7, 299]] + copies * torch.randn(3, 2, 5, generator=generator)
    return train, test


PLANTED = [[4, 100], [9, 7], [60, 299]]


def test_planted_copies_are_found() -> None:
    found = exact_duplicates(*sets())
    assert found.pairs.tolist() == PLANTED
    interval = scipy.stats.binomtest(3, 80).proportion_ci(method="wilson")
    assert found.share == pytest.approx((3 / 80, interval.low, interval.high))
    assert exact_duplicates(*sets(1e-6)).pairs.shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.bfloat16, torch.bool])
def test_exact_ones_are_those_of_all_pairs_in_every_type(dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(-2, 3, (60, 3), generator=generator).to(dtype)
    test = torch.randint(-2, 4, (50, 3), generator=generator).to(dtype)
    same = (test[:, None] == train).all(2)
    expected = [[i, int(same[i].int().argmax())] for i in range(50) if same[i].any()]
    assert exact_duplicates(train, test).pairs.tolist() == expected


def test_signed_zeros_are_equal_and_a_nan_is_itself() -> None:
    train = torch.tensor([[0.0, 1.0], [float("nan"), 2.0]])
    test = torch.tensor([[-0.0, 1.0], [float("nan"), 2.0], [0.0, 2.0]])
    assert exact_duplicates(train, test).pairs.tolist() == [[0, 0], [1, 1]]
    assert train[0, 0] == 0


def test_near_ones_are_found_and_distances_are_those_of_all_pairs() -> None:
    train, test = sets(0.01)
    found = near_duplicates(train, test)
    assert found.pairs.tolist() == PLANTED
    a, b = train.flatten(1).double(), test.flatten(1).double()
    usual = (torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist") + 1e9 * torch.eye(300)).amin(1).median()
    expected = torch.cdist(b, a, compute_mode="donot_use_mm_for_euclid_dist").amin(1) / usual
    torch.testing.assert_close(found.distances, expected)
    assert 0.8 < found.distances.median() < 1.3


def test_units_and_place_do_not_matter_and_copies_are_at_zero() -> None:
    train, test = sets()
    moved = near_duplicates(1e-3 * train.double() + 1e4, 1e-3 * test.double() + 1e4)
    assert moved.pairs.tolist() == PLANTED
    torch.testing.assert_close(moved.distances, near_duplicates(train, test).distances, rtol=1e-4, atol=1e-4)
    assert near_duplicates(train, test).distances[[4, 9, 60]].tolist() == [0.0] * 3


def test_the_usual_distance_of_a_large_set_is_that_of_some_of_its_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(5000, 2, generator=generator), torch.randn(10, 2, generator=generator)
    found = near_duplicates(train, test)
    a = train[::3].double()
    distances = (a[:, None] - train.double()).norm(dim=2).kthvalue(2, 1).values
    nearest = (test[:, None].double() - train.double()).norm(dim=2).amin(1)
    torch.testing.assert_close(found.distances, nearest / distances.median())


def test_a_plot_draws_all_distances_and_the_threshold() -> None:
    found = near_duplicates(*sets(), threshold=0.2)
    axes = found.plot(Figure().add_subplot())
    assert sum(bar.get_height() for bar in axes.patches) == 80
    assert axes.patches[0].get_height() == 3
    assert axes.lines[0].get_xdata()[0] == 0.2


def test_wrong_input_is_refused() -> None:
    train, test = sets()
    for search in (exact_duplicates, near_duplicates):
        with pytest.raises(TikhonError, match="samples of one shape"):
            search(train, test[:, :1])
        with pytest.raises(TikhonError, match="samples of one shape"):
            search(train, test[:0])
        with pytest.raises(TikhonError, match="level"):
            search(train, test, level=0.0)
    with pytest.raises(TikhonError, match="Cast one"):
        exact_duplicates(train, test.double())
    with pytest.raises(TikhonError, match="positive threshold"):
        near_duplicates(train, test, threshold=0.0)
    with pytest.raises(TikhonError, match="At least 2"):
        near_duplicates(train[:1], test)
    with pytest.raises(TikhonError, match="NaN or infinity"):
        near_duplicates(train, test / 0.0)
    with pytest.raises(TikhonError, match="exact copies"):
        near_duplicates(train[:1].repeat(9, 1, 1), test)
