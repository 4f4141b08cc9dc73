"""A data set whose items know their own number, for methods that remember something about each sample."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from tikhon.core.errors import TikhonError


def indexed(dataset: Any) -> "Indexed":
    """Wrap a whole map-style data set, before any split, so that each item carries its index as sample id.

    A tuple or list gets the index first, a mapping gets the key "index", any other item becomes (index, item). Wrap
    first and split afterwards: then the ids of training and validation samples never collide, and stay the same
    whatever the sampler and the number of workers.

    >>> indexed([("a", 0), ("b", 1)])[1]
    (1, 'b', 1)

    Errors: TikhonError for iterable data sets and those without a length.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise TikhonError(
            f"{type(dataset).__name__} is iterable: its samples have no number, so a method that remembers something "
            "about each sample cannot find it again. Use a map-style data set (__getitem__ and __len__), or yield "
            "a fixed id of your own with each sample and pass it as index="
        )
    if not hasattr(dataset, "__len__"):
        raise TikhonError(f"{type(dataset).__name__} has no __len__; memories need to know how many samples there are")
    return Indexed(dataset)


class Indexed(Dataset[Any]):
    """What `indexed` returns."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        number = self._number(index)
        return _with_index(number, self.dataset[number])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A whole batch at once: the data loader asks for it, and some data sets are much faster that way."""
        numbers = [self._number(index) for index in indices]
        if hasattr(self.dataset, "__getitems__"):
            items = self.dataset.__getitems__(numbers)
        else:
            items = [self.dataset[number] for number in numbers]
        return [_with_index(number, item) for number, item in zip(numbers, items, strict=True)]

    def _number(self, index: int) -> int:
        """The sample's one number, whether it was asked for by -1 or by len - 1."""
        number, length = operator.index(index), len(self.dataset)
        if not -length <= number < length:
            raise IndexError(f"index {number} is out of range for {length} samples")
        return number % length


def _with_index(index: int, item: Any) -> Any:
    if isinstance(item, Mapping):
        if "index" in item:
            raise TikhonError(
                'the items already have a key "index"; rename it, or if it is the sample id, use the data set as it is'
            )
        return {**item, "index": index}
    if isinstance(item, tuple):
        return (index, *item)
    if isinstance(item, list):
        return [index, *item]
    return (index, item)
