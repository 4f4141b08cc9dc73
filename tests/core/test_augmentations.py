"""Views: what is drawn, and from where; shifts by hand; nests; pools in the batch's precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.core.augmentations import noise, one_after_another, shift, viewed


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_shift_is_one_of_the_shifts_by_hand() -> None:
    images = torch.rand(50, 2, 4, 5)
    moved = shift(1)(images, generator())
    padded = F.pad(images, (1, 1, 1, 1))
    seen = set()
    for one, found in zip(padded, moved, strict=True):
        fits = [(i, j) for i in range(3) for j in range(3) if torch.equal(one[:, i : i + 4, j : j + 5], found)]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == 9


def test_signals_shift_and_tables_do_not() -> None:
    signals, table = torch.rand(20, 1, 8), torch.rand(20, 8)
    moved = shift(2)(signals, generator())
    assert moved.shape == signals.shape
    assert not torch.equal(moved, signals)
    assert torch.equal(shift(2)(table, generator()), table)


def test_noise_and_chains_draw_from_the_generator_alone() -> None:
    x = torch.zeros(2000)
    view = one_after_another(noise(0.5), lambda x, _: x + 1.0)
    found = view(x, generator())
    assert torch.equal(found, view(x, generator()))
    assert found.std() == pytest.approx(0.5, rel=0.1)
    assert found.mean() == pytest.approx(1.0, abs=0.05)


def test_only_numbers_of_a_nest_are_changed_and_shapes_stay() -> None:
    recipe = tikhon.Recipe(tikhon.MeanTeacher(ramp=0.0))
    recipe.prepare(nn.Linear(3, 2))
    step = recipe._plan.entries[0].step
    given = {"x": torch.zeros(4, 3), "ids": torch.arange(4)}
    found = viewed(given, noise(1.0), step, "it")
    assert torch.equal(found["ids"], given["ids"])
    assert found["x"].any()
    with pytest.raises(tikhon.TikhonError, match="must have that shape"):
        viewed(given, lambda x, _: x[1:], step, "it")
