"""Learned strengths: tuned by the hypergradient of the validation loss, in the one run that trains the network."""

from __future__ import annotations

from tikhon.core.card import Card
from tikhon.core.strength import Learned

__all__ = ["Learned"]

card = Card(
    title="Scalable Gradient-Based Tuning of Continuous Regularization Hyperparameters",
    authors="Luketina, Berglund, Greff, Raiko",
    year=2016,
    arxiv="1511.06727",
    problems=("overfitting", "speed"),
    formula=r"\log\lambda \leftarrow \log\lambda + \eta\lambda\,\langle r\nabla V, \nabla_w \partial_\lambda O\rangle",
    claim="Strengths that follow the gradient of the validation loss in one run come near those that searches find.",
    helps="Penalties that help at once, such as L2 where a network over-fits; several strengths together.",
    hurts="Strengths whose effect comes late, as under label noise: one step ahead they only slow the fit, and fall.",
    cost="At every tenth step a pass over a validation batch and its gradient, and two passes without gradient.",
    neutral="",
    example="initial=1e-4, low=1e-6, high=1e-1",
    kind="tuner",
)
