import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tikhon.core.errors import TikhonError
from tikhon.data.splits import draw


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.floats(0, 1), st.integers(0, 99))
def test_a_draw_is_stratified_and_loses_nobody(counts, share, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator(seed + 1))]
    size = max(len(counts), round(share * len(labels)))
    drawn, others = draw(labels, size, generator(seed))
    assert len(drawn) == size
    assert sorted(drawn.tolist() + others.tolist()) == list(range(len(labels)))
    taken = torch.bincount(labels[drawn], minlength=len(counts))
    ideal = torch.tensor(counts) * size / len(labels)
    assert taken.min() >= 1
    if ideal.min() >= 1:  # rare classes are topped up; without them nobody is more than one sample off
        assert (taken - ideal).abs().max() < 1


def test_values_are_drawn_uniformly():
    drawn, others = draw(torch.rand(10, 1, generator=generator()), 4, generator())
    assert len(drawn) == 4
    assert sorted(drawn.tolist() + others.tolist()) == list(range(10))


def test_another_seed_draws_others():
    labels = torch.arange(100) % 2
    assert not torch.equal(draw(labels, 50, generator(0))[0], draw(labels, 50, generator(1))[0])


def test_fewer_samples_than_classes_are_refused():
    with pytest.raises(TikhonError, match="3 samples cannot represent 5 classes"):
        draw(torch.arange(50) % 5, 3, generator())
