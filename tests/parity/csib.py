"""The information bottleneck against the official functions: mutual information, divergence, widths and gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tikhon.methods.features.cs_ib import (
    cs_conditional_divergence,
    cs_mutual_information,
    gaussian_kernel,
    median_width,
)

CLOSE = {"rtol": 1e-6, "atol": 1e-10}


def bits(value: Tensor) -> Tensor:
    """The official logarithms are to base 2."""
    return value / math.log(2.0)


def check(case: Mapping[str, np.ndarray]) -> None:
    arrays = {name: torch.from_numpy(np.atleast_1d(values)) for name, values in case.items()}
    x, y, prediction = arrays["x"], arrays["y"], arrays["yhat"]
    width = float(case["sigma"])

    inputs = x.clone().requires_grad_()
    found = bits(cs_mutual_information(gaussian_kernel(inputs, inputs, width), gaussian_kernel(y, y, width)))
    torch.testing.assert_close(found.detach(), arrays["cs_qmi"].squeeze(), **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(found, inputs)[0], arrays["cs_qmi_grad_x"], **CLOSE)

    found = cs_mutual_information(gaussian_kernel(inputs, inputs, width), gaussian_kernel(y, y, width), normalised=True)
    torch.testing.assert_close(found.detach(), arrays["cs_qmi_normalized"].squeeze(), **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(found, inputs)[0], arrays["cs_qmi_normalized_grad_x"], **CLOSE)

    widths = median_width(x), median_width(y)
    torch.testing.assert_close(widths[0] / 10.0, arrays["sigma_estimation_x"].squeeze(), **CLOSE)
    torch.testing.assert_close(widths[1] / 10.0, arrays["sigma_estimation_y"].squeeze(), **CLOSE)
    found = bits(cs_mutual_information(gaussian_kernel(x, x, widths[0]), gaussian_kernel(y, y, widths[1])))
    torch.testing.assert_close(found, arrays["cs_qmi_sigma_none"].squeeze(), **CLOSE)

    guess = prediction.clone().requires_grad_()
    found = bits(
        cs_conditional_divergence(
            gaussian_kernel(inputs, inputs, width),
            gaussian_kernel(y, y, width),
            gaussian_kernel(guess, guess, width),
            gaussian_kernel(guess, y, width),
            squared_entries=True,
        )
    )
    torch.testing.assert_close(found.detach(), arrays["cs_div"].squeeze(), **CLOSE)
    gradients = torch.autograd.grad(found, (inputs, guess))
    torch.testing.assert_close(gradients[0], arrays["cs_div_grad_x"], **CLOSE)
    torch.testing.assert_close(gradients[1], arrays["cs_div_grad_yhat"], **CLOSE)
