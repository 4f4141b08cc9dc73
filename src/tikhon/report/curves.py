"""The history of a training as curves: a number after every epoch, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tikhon.core.fit import History

Curves = Mapping[str, Sequence[float]]
"""Losses and metrics of splits: "train_loss", "test_loss", "train_metric", "validation_metric", "test_metric"; of
metrics more is better."""


def curves_of(history: History | Curves | None) -> dict[str, list[float]]:
    """Curves by name, as far as the training went whose weights were kept; none without a history.

    >>> curves_of(History(train_loss=[2.0, 1.0, 0.5], metrics={"test": [0.5, 0.8, 0.7]}, best_epoch=1))
    {'train_loss': [2.0, 1.0], 'test_metric': [0.5, 0.8]}
    """
    if history is None:
        return {}
    if not isinstance(history, History):
        return {name: list(values) for name, values in history.items()}
    end = None if history.best_epoch is None else history.best_epoch + 1
    metrics = {f"{name}_metric": values for name, values in history.metrics.items()}
    return {name: values[:end] for name, values in {"train_loss": history.train_loss, **metrics}.items()}
