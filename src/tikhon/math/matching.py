"""Matching: clusters that have no names against classes that have."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def clustering_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """The share of samples in the cluster of their class, under the best one-to-one match of clusters with classes.

    clusters, labels: (N,), int64, at least 0. Returns a number in [0, 1]. Source: Kuhn 1955.

    >>> clustering_accuracy(torch.tensor([1, 1, 0, 0]), torch.tensor([0, 0, 1, 0]))
    0.75
    """
    size = int(max(clusters.max(), labels.max())) + 1
    table = torch.bincount(clusters * size + labels, minlength=size * size).reshape(size, size).cpu().numpy()
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum()) / len(labels)
