"""`tk.Doctor`: what it sees after every epoch, in tikhon's loop and in one's own, and what it says in the end."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tikhon as tk
from tikhon.core.errors import TikhonError

CENTRES = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])


def data(samples: int = 80, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(samples) % 2
    return CENTRES[labels] + torch.randn(samples, 2, generator=torch.Generator().manual_seed(seed)), labels


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


def test_in_fit_it_sees_what_training_would_deliver_and_moves_nothing() -> None:
    doctor = tk.Doctor(data(), data(60, 1))
    plain, _ = tk.fit(network(), tk.Recipe(tk.EMA(0.9)), data(), epochs=12, batch_size=16)
    model, history = tk.fit(
        network(),
        tk.Recipe(tk.EMA(0.9)),
        data(),
        epochs=12,
        batch_size=16,
        metrics={"test": doctor.end_epoch},
        keep_best=None,
    )
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), plain.parameters(), strict=True))
    assert history.metrics["test"] == doctor.history["test_metric"]
    inputs, labels = data(60, 1)
    with torch.no_grad():
        output = model.eval()(inputs)
    assert doctor.history["test_loss"][-1] == pytest.approx(F.cross_entropy(output, labels).item(), rel=1e-5)
    assert doctor.history["test_metric"][-1] == (output.argmax(1) == labels).double().mean().item()
    assert {len(values) for values in doctor.history.values()} == {12}
    found = doctor.examine(model)
    assert {"past its best", "unfinished"} <= {one.name for one in (*found.findings, *found.sound)}
    assert found.drawn.curves["train_loss"] == [doctor.history["train_loss"]]


def test_given_a_recipe_it_sees_the_average_and_the_trained_weights_return() -> None:
    recipe, doctor = tk.Recipe(tk.EMA(0.9)), tk.Doctor(data(), data(60, 1))
    model = recipe.prepare(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recipe.attach(optimizer)
    for _ in range(5):
        recipe.loss(*data()).backward()
        optimizer.step()
    trained = [one.detach().clone() for one in model.parameters()]
    doctor.end_epoch(recipe)
    assert model.training
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), trained, strict=True))
    doctor.end_epoch(model)
    of_average, of_trained = doctor.history["train_loss"]
    assert of_average != of_trained
    with torch.no_grad():
        assert of_average == pytest.approx(
            F.cross_entropy(recipe.export().eval()(data()[0]), data()[1]).item(), rel=1e-5
        )


def test_wrapped_and_otherwise_called_models_are_looked_at() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.net(x)}

    named = Named()
    doctor = tk.Doctor(data(), data(60, 1), call=lambda model, x: model(x)["logits"])
    plain = tk.Doctor(data(), data(60, 1))
    compiled = torch.compile(named, backend="eager")
    assert doctor.end_epoch(compiled) == plain.end_epoch(named.net)
    assert doctor.history == plain.history
    found, expected = doctor.examine(named), plain.examine(named.net)
    assert [one.reading.value for one in found.sound] == [one.reading.value for one in expected.sound]
    assert found.about["model"] == "Named"


def test_values_are_measured_too_and_a_diverged_model_does_not_end_a_training() -> None:
    inputs = torch.linspace(-1, 1, 40)[:, None]
    doctor = tk.Doctor((inputs, 2 * inputs), (inputs, 2 * inputs))
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.zeros_(model.bias)
    assert doctor.end_epoch(model) == 1.0
    assert doctor.history["test_loss"] == [0.0]
    nn.init.constant_(model.weight, math.nan)
    assert math.isnan(doctor.end_epoch(model))
    with pytest.raises(TikhonError, match="NaN or infinity"):
        doctor.examine(model)


def test_large_sets_are_looked_at_in_part_and_its_state_survives() -> None:
    rows = []

    class Counting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            rows.append(len(x))
            return super().forward(x)

    doctor = tk.Doctor(data(5000), data(3000, 1))
    doctor.end_epoch(Counting(2, 2))
    assert sum(rows) == 4000
    again = tk.Doctor(data(5000), data(3000, 1))
    again.load_state_dict(doctor.state_dict())
    assert again.history == doctor.history
    again.end_epoch(nn.Linear(2, 2))
    assert len(doctor.history["test_loss"]) == 1


def test_what_does_not_fit_is_refused_before_training() -> None:
    with pytest.raises(TikhonError, match="test must be inputs"):
        tk.Doctor(data(), (data()[0], data()[1][:3]))


def test_printed_it_reads_as_on_the_command_line_and_it_is_written_as_a_page(tmp_path) -> None:
    found = tk.Doctor(data(), data(60, 1)).examine(network())
    text = str(found)
    assert "Within limits:" in text
    assert "past its best: There is no history" in text
    found.write(tmp_path / "report.html")
    assert "Within limits" in (tmp_path / "report.html").read_text()
