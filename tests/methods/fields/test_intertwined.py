"""Intertwined regularisation: stereo against loops, the guide in the loss, its rounds, resuming, and wrong input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon import TikhonError
from tikhon.math.stereo import block_matching, flattened, matching_costs, sampled, texture

INPUTS = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64)[:, None]
TARGET, INDEX = torch.sin(3.0 * INPUTS), torch.arange(12)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_costs_are_those_of_the_loop_and_interpolation_is_numpys() -> None:
    left, right, disparities, window = drawn(20), drawn(20) + 0.1, torch.tensor([0.0, 1.5, 3.0]).double(), 5
    found = matching_costs(left, right, disparities, window)
    for i, d in enumerate(disparities.tolist()):
        for x in range(20):
            inside = [x + k for k in range(-2, 3) if 0 <= x + k < 20]
            other = np.interp([one - d for one in inside], np.arange(20), right.numpy())
            expected = np.abs(left.numpy()[inside] - other).mean()
            assert found[i, x].item() == pytest.approx(expected, rel=1e-12)
    places = torch.tensor([-3.0, 0.2, 7.0, 18.999, 19.0, 40.0]).double()
    torch.testing.assert_close(sampled(left, places), torch.from_numpy(np.interp(places, np.arange(20), left.numpy())))
    deviation = left.unfold(0, 5, 1).std(1, correction=0)
    torch.testing.assert_close(texture(left, 5)[2:-2], deviation)
    assert sampled(torch.ones(1), torch.tensor([3.0])).item() == 1.0


def test_matching_finds_shifts_and_knows_where_it_cannot() -> None:
    scene = drawn(80)
    scene[30:50] = 0.5
    found, consistent = block_matching(scene, scene.roll(-6), torch.arange(12.0).double(), window=5)
    textured = torch.cat([torch.arange(10, 27), torch.arange(53, 76)])
    assert (found[textured] == 6.0).all()
    assert consistent[textured].all()
    assert not consistent[:6].any()  # what the right line does not see
    found, consistent = block_matching(
        scene + 0.01 * drawn(80), scene.roll(-6), torch.arange(12.0).double(), 5, prior=torch.full((80,), 6.4).double()
    )
    assert ((found - 6.4).abs() <= 1.0).all()  # restarted: no more than the radius away, flat or not
    assert consistent[33:48].all()
    wrong = torch.where(texture(scene, 5) > 0.1, torch.nan, 6.4)
    assert wrong[33:47].isfinite().all()
    found, _ = block_matching(scene, scene.roll(-6), torch.arange(12.0).double(), 5, prior=wrong - 3.0)
    assert (found[textured] == 6.0).all()  # a wrong prior does no harm where it is not asked for


def test_lines_of_regions_are_least_squares() -> None:
    values, regions = drawn(12), torch.tensor([0] * 5 + [1] * 6 + [2])
    found = flattened(values, regions)
    for k in range(2):
        inside = (regions == k).numpy()
        line = np.polynomial.Polynomial.fit(np.arange(12)[inside], values.numpy()[inside], 1)
        np.testing.assert_allclose(found[inside], line(np.arange(12)[inside]), atol=1e-10)
    assert found[11] == values[11]


def ready(matcher, epochs=6, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    method = tikhon.IntertwinedReg(matcher, **arguments)
    recipe = tikhon.Recipe(method, base=F.mse_loss)
    recipe.prepare(model, samples=12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe.attach(optimizer, epochs=epochs)
    return method, recipe, model, optimizer


def epoch(recipe, optimizer):
    for rows in INDEX.split(5):
        optimizer.zero_grad()
        recipe.loss(INPUTS[rows], TARGET[rows], index=rows).backward()
        optimizer.step()
    recipe.end_epoch()


class Recorder:
    """A matcher that keeps what it was asked, and answers with one more."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, prediction):
        self.asked.append(prediction)
        values = torch.full((12, 1), 2.0) if prediction is None else prediction + 1.0
        return values, INDEX % 3 == 0


def test_only_trusted_samples_are_pulled_and_by_the_distance_to_the_guide() -> None:
    _, recipe, model, _ = ready(Recorder(), strength=0.7)
    rows = torch.tensor([3, 4, 9])
    loss = recipe.loss(INPUTS[rows], TARGET[rows], index=rows)
    output = model(INPUTS[rows])
    expected = F.mse_loss(output, TARGET[rows]) + 0.7 * ((2.0 - output[0]).abs() + (2.0 - output[2]).abs())[0] / 3
    torch.testing.assert_close(loss, expected)


def test_every_round_the_matcher_starts_from_the_latest_predictions() -> None:
    matcher = Recorder()
    method, recipe, model, optimizer = ready(matcher, every=2)
    seen = {}

    def keep(module, args, output):
        seen.update(zip(args[0][:, 0].tolist(), output[:, 0].tolist(), strict=True))

    handle = model.register_forward_hook(keep)
    for done in range(1, 5):
        epoch(recipe, optimizer)
        assert len(matcher.asked) == 1 + done // 2
    handle.remove()
    latest = torch.tensor([[seen[x]] for x in INPUTS[:, 0].tolist()]).double()
    torch.testing.assert_close(matcher.asked[-1], latest)
    torch.testing.assert_close(method.guide, latest + 1.0)
    assert matcher.asked[0] is None


def test_a_field_and_a_matcher_that_fail_in_different_places_help_each_other() -> None:
    """The task knows the left half alone, the matcher the right one."""

    def matcher(prediction):
        return TARGET.clone(), INDEX >= 6

    errors = []
    for strength in (0.0, 1.0):
        _, recipe, model, _ = ready(matcher, strength=strength, every=1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        recipe.detach()
        recipe.attach(optimizer)
        known = torch.where(INDEX[:, None] < 6, TARGET, 0.0)
        for _ in range(300):
            optimizer.zero_grad()
            recipe.loss(INPUTS, torch.where(INDEX[:, None] < 6, known, model(INPUTS).detach()), index=INDEX).backward()
            optimizer.step()
        errors.append(F.mse_loss(model(INPUTS), TARGET).item())
    assert errors[1] < 0.1 * errors[0]


def test_the_guide_is_part_of_the_state() -> None:
    _, recipe, _, optimizer = ready(Recorder(), every=1)
    epoch(recipe, optimizer)
    method, other, _, _ = ready(Recorder(), every=1)
    other.load_state_dict(copy.deepcopy(recipe.state_dict()))
    torch.testing.assert_close(method.guide, recipe.methods["intertwined"].guide)


def test_what_does_not_fit_is_refused() -> None:
    for arguments, says in (({"matcher": 3}, "matcher"), ({"matcher": Recorder(), "every": 0}, "every")):
        with pytest.raises(TikhonError, match=says):
            tikhon.IntertwinedReg(**arguments)
    with pytest.raises(TikhonError, match=r"one boolean a sample, not shapes \(12, 1\) and \(12, 1\)"):
        ready(lambda prediction: (torch.zeros(12, 1), torch.zeros(12, 1)))
    for shape in ((12,), (11, 1)):
        _, recipe, _, _ = ready(lambda prediction, shape=shape: (torch.zeros(shape), torch.zeros(shape[0])))
        with pytest.raises(TikhonError, match=r"the model predicts \(12, 1\)"):
            recipe.loss(INPUTS, TARGET, index=INDEX)
    with pytest.raises(TikhonError, match="odd"):
        matching_costs(torch.zeros(4), torch.zeros(4), torch.zeros(1), window=2)
