from collections import UserDict

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from tikhon.core.errors import TikhonError
from tikhon.data import indexed

INPUTS = torch.arange(20.0).view(20, 1) * 10
LABELS = torch.arange(20) % 3


class Batched(Dataset):
    """A data set that fetches whole batches, and only so."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        raise AssertionError("fetched one by one")

    def __getitems__(self, indices):
        return [(INPUTS[i], LABELS[i]) for i in indices]


class Endless(IterableDataset):
    def __iter__(self):
        yield from range(10)


def test_tuples_and_lists_get_the_index_first():
    assert indexed([("a", 0), ("b", 1)])[1] == (1, "b", 1)
    assert indexed([["a", 0], ["b", 1]])[1] == [1, "b", 1]


@pytest.mark.parametrize("mapping", [dict, UserDict])
def test_mappings_get_a_key(mapping):
    original = mapping(x=3)
    assert indexed([original])[0] == {"x": 3, "index": 0}
    assert "index" not in original


def test_a_taken_key_is_refused():
    with pytest.raises(TikhonError, match='already have a key "index"'):
        indexed([{"index": 7}])[0]


def test_single_items_become_a_pair():
    assert indexed(["a", "b"])[0] == (0, "a")
    assert indexed(torch.tensor([5, 6]))[1] == (1, torch.tensor(6))


def test_a_sample_has_one_number_however_it_is_asked_for():
    data = indexed(TensorDataset(INPUTS, LABELS))
    assert data[-1][0] == 19
    assert data[torch.tensor(4)][0] == 4
    for wrong in (20, -21):
        with pytest.raises(IndexError, match="out of range for 20"):
            data[wrong]


def test_iteration_ends():
    assert [item[0] for item in indexed(["a", "b", "c"])] == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("inner", [TensorDataset(INPUTS, LABELS), Batched()])
def test_ids_survive_split_shuffle_collate_and_workers(inner, workers):
    generator = torch.Generator().manual_seed(0)
    train, validation = random_split(indexed(inner), [15, 5], generator=generator)
    seen = []
    for split in (train, validation):
        loader = DataLoader(split, batch_size=4, shuffle=True, num_workers=workers, generator=generator)
        for index, x, y in loader:
            assert index.dtype == torch.int64
            assert torch.equal(x, INPUTS[index])
            assert torch.equal(y, LABELS[index])
            seen += index.tolist()
    assert sorted(seen) == list(range(20))


def test_mappings_collate():
    data = indexed([{"x": x, "y": y} for x, y in zip(INPUTS, LABELS, strict=True)])
    batch = next(iter(DataLoader(Subset(data, [7, 3]), batch_size=2)))
    assert batch["index"].tolist() == [7, 3]
    assert batch["x"].flatten().tolist() == [70, 30]


def test_whole_batches_are_forwarded():
    assert [item[0] for item in indexed(Batched()).__getitems__([3, -1])] == [3, 19]


@pytest.mark.parametrize("dataset", [Endless(), (i for i in range(3))])
def test_iterable_data_sets_are_refused_with_the_reason(dataset):
    with pytest.raises(TikhonError, match=r"cannot find it again.*map-style"):
        indexed(dataset)


def test_a_data_set_without_length_is_refused():
    class NoLength(Dataset):
        def __getitem__(self, index):
            return index

    with pytest.raises(TikhonError, match="__len__"):
        indexed(NoLength())
