"""Newton's step on potentials against a dense solve, in fewer iterations than the whole matrix would ask for."""

from __future__ import annotations

import pytest
import torch

from tikhon.math.balancing import balancing_step


def system(n=7, m=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(n, m, generator=generator, dtype=dtype)
    w = torch.where(w > 0.6, w, 0.0)
    diagonal = w.sum(1) + 0.1, w.sum(0) + 0.2
    right = torch.randn(n, generator=generator, dtype=dtype), torch.randn(m, generator=generator, dtype=dtype)
    return w, diagonal, right


def whole(w, diagonal):
    return torch.cat((torch.cat((diagonal[0].diag(), w), 1), torch.cat((w.T, diagonal[1].diag()), 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_solves_the_whole_system(dtype) -> None:
    w, diagonal, right = system(dtype=dtype)
    entries = w.flatten().nonzero()[:, 0]
    assert 0 < len(entries) < w.numel()
    (x, y), used = balancing_step(entries, w.flatten()[entries], diagonal, right, 1e-10)
    torch.testing.assert_close(torch.cat((x, y)), torch.linalg.solve(whole(w, diagonal), torch.cat(right)))
    assert 1 < used <= 7
    assert x.dtype == dtype


def test_it_ends_at_the_share() -> None:
    w, diagonal, right = system()
    entries = w.flatten().nonzero()[:, 0]
    used = [balancing_step(entries, w.flatten()[entries], diagonal, right, one)[1] for one in (0.5, 1e-3, 1e-12)]
    assert used[0] < used[1] < used[2]


def test_a_chain_that_conjugate_gradients_would_walk_along_is_solved_at_once() -> None:
    n = 200
    w = torch.eye(n, dtype=torch.float64) + torch.eye(n, dtype=torch.float64).roll(1, 1).triu()
    diagonal = w.sum(1) + 1e-4, w.sum(0) + 1e-4
    right = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    right[0][0], right[1][-1] = 1.0, -1.0
    entries = w.flatten().nonzero()[:, 0]
    (x, y), used = balancing_step(entries, w.flatten()[entries], diagonal, right, 1e-12)
    assert used < n / 2
    exact = torch.linalg.solve(whole(w, diagonal), torch.cat(right))
    torch.testing.assert_close(torch.cat((x, y)), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))
