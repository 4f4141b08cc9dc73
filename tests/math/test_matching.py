"""Matching of clusters with classes against a search over all permutations."""

from __future__ import annotations

import itertools

import pytest
import torch

from tikhon.math.matching import clustering_accuracy


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_best_of_all_permutations(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    clusters, labels = torch.randint(4, (2, 30), generator=generator)
    best = max(
        (torch.tensor(names)[clusters] == labels).double().mean().item() for names in itertools.permutations(range(4))
    )
    assert clustering_accuracy(clusters, labels) == pytest.approx(best)


def test_names_do_not_matter_and_classes_may_outnumber_clusters() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 5])
    assert clustering_accuracy((labels + 3) % 7, labels) == 1.0
    assert clustering_accuracy(torch.zeros(6, dtype=torch.int64), labels) == pytest.approx(2 / 6)
