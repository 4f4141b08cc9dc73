"""Loki against the official prediction: scores, choice and gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tikhon.measures.loki import frechet_predict, frechet_scores

CLOSE = {"rtol": 1e-6, "atol": 1e-12}


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in case.items() if values.ndim}
    probabilities = arrays["probs"].clone().requires_grad_()
    scores = frechet_scores(probabilities, arrays["dists"])
    torch.testing.assert_close(scores.detach(), arrays["scores"], **CLOSE)
    assert torch.equal(frechet_predict(arrays["probs"], arrays["dists"]), arrays["prediction"])
    places = torch.arange(scores.shape[1], dtype=scores.dtype)
    (gradient,) = torch.autograd.grad((scores * places).sum(), probabilities)
    torch.testing.assert_close(gradient, arrays["grad_probs_of_weighted_sum"], **CLOSE)
