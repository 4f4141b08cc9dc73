"""Logits: higher precision, closed forms, a training whose softmax collapses, and histories that go on."""

from __future__ import annotations

import io
import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tikhon import TikhonError
from tikhon.measures.logits import LogitHistory, collapsed_share, confidence, logit_scale, overconfidence

LOGITS = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(5, (30,), generator=torch.Generator().manual_seed(1))


def test_collapse_begins_where_the_precision_ends() -> None:
    gaps = torch.arange(1.0, 60.0)
    logits = torch.stack([gaps, torch.zeros_like(gaps)], dim=1)
    labels = torch.zeros(len(gaps), dtype=torch.int64)
    for dtype in (torch.float32, torch.float64):
        exact = [math.log1p(math.exp(-gap)) for gap in gaps.tolist()]
        # 1 + exp(-gap) rounds to 1 below half of the spacing of numbers just above 1
        expected = sum(math.exp(-gap) <= torch.finfo(dtype).eps / 2 for gap in gaps.tolist()) / len(gaps)
        assert min(exact) > 0.0
        assert float(collapsed_share(logits.to(dtype), labels)) == pytest.approx(expected, abs=1.01 / len(gaps))
    assert float(collapsed_share(logits, labels)) > float(collapsed_share(logits.double(), labels)) > 0.3
    assert collapsed_share(logits, 1 - labels) == 0.0


def test_scale_confidence_and_overconfidence() -> None:
    centred = LOGITS.double() - LOGITS.double().mean(1, keepdim=True)
    assert float(logit_scale(LOGITS)) == pytest.approx(float(centred.pow(2).mean().sqrt()), rel=1e-6)
    assert float(logit_scale(LOGITS + 100.0)) == pytest.approx(float(logit_scale(LOGITS)), rel=1e-4)
    assert float(logit_scale(3.0 * LOGITS)) == pytest.approx(3.0 * float(logit_scale(LOGITS)))
    sure = sum(max(math.exp(v) for v in row) / sum(math.exp(v) for v in row) for row in LOGITS.tolist()) / 30
    right = sum(
        max(range(5), key=row.__getitem__) == y for row, y in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    )
    assert float(confidence(LOGITS)) == pytest.approx(sure, rel=1e-5)
    assert float(overconfidence(LOGITS, LABELS)) == pytest.approx(sure - right / 30, abs=1e-6)
    assert confidence(LOGITS.bfloat16()).dtype == torch.float32


def trained(steps: int, history: LogitHistory, seed: int = 0):
    """A network on separable data with a high rate: its logits grow until the softmax collapses."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    x = torch.randn(40, 2)
    y = (x[:, 0] > 0).long()
    x[:, 0] += torch.where(y == 1, 1.0, -1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(x)
        F.cross_entropy(output, y).backward()
        optimizer.step()
        history.update(model, output, y)
    return model, output.detach(), y


def test_a_history_holds_what_happened_and_what_is() -> None:
    history = LogitHistory()
    model, output, y = trained(150, history)
    model.requires_grad_(False)
    values, norms = history.values(), history.weight_norms()
    assert {name: len(one) for name, one in {**values, **norms}.items()} == {
        **dict.fromkeys(("scale", "collapsed", "confidence", "overconfidence", "weight_norm"), 150),
        **dict.fromkeys(("0.weight", "2.weight"), 150),
    }
    assert norms["2.weight"][-1] == pytest.approx(float(model[2].weight.norm()))
    total = (model[0].weight.square().sum() + model[2].weight.square().sum()).sqrt()
    assert values["weight_norm"][-1] == pytest.approx(float(total))
    assert values["scale"][-1] == logit_scale(output)
    assert values["collapsed"][-1] == collapsed_share(output, y)
    assert values["collapsed"][0] == 0.0
    assert values["collapsed"][-1] > 0.3
    assert values["scale"][-1] > 20.0 * values["scale"][0]
    assert not any(row.requires_grad for row in history._rows)


def test_effective_weights_count_and_parameters_stay() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(3, 5))
    history = LogitHistory()
    before = [one.detach().clone() for one in model.parameters()]
    history.update(model, LOGITS, LABELS)
    assert history.weight_norms()["weight"][0] == pytest.approx(float(model.weight.detach().norm()), rel=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))


def test_it_goes_on_in_a_new_process() -> None:
    whole = LogitHistory()
    trained(6, whole)
    half = LogitHistory()
    trained(3, half)
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = LogitHistory()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    model, output, y = trained(3, LogitHistory())
    resumed.update(model, output, y)
    assert torch.equal(resumed.values()["scale"][:3], whole.values()["scale"][:3])
    assert len(resumed.weight_norms()["0.weight"]) == 4
    empty = LogitHistory()
    empty.load_state_dict(LogitHistory().state_dict())
    assert len(empty.values()["scale"]) == 0


def test_the_drawing_shows_three_lines() -> None:
    history = LogitHistory()
    trained(5, history)
    axes = history.plot()
    scale, norm = axes.get_lines()
    assert list(scale.get_ydata()) == history.values()["scale"].tolist()
    assert list(norm.get_ydata()) == history.values()["weight_norm"].tolist()
    assert len(axes.get_legend().get_texts()) == 3
    plt.close(axes.figure)


def test_wrong_input_is_refused() -> None:
    history = LogitHistory()
    with pytest.raises(TikhonError, match=r"\(N, K\)"):
        history.update(nn.Linear(2, 5), LOGITS[0], LABELS)
    with pytest.raises(TikhonError, match=r"\(N,\)"):
        history.update(nn.Linear(2, 5), LOGITS, LABELS[:3])
    history.update(nn.Linear(2, 5), LOGITS, LABELS)
    with pytest.raises(TikhonError, match="another model"):
        history.update(nn.Sequential(nn.Linear(2, 5)), LOGITS, LABELS)
