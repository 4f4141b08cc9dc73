"""Checkpoints: what is kept, what is refused, and a file that would run something."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from torch import nn

import tikhon
from tikhon import TikhonError
from tikhon.core import checkpoint
from tikhon.core.checkpoint import Checkpoint


def test_the_latest_two_are_kept_and_the_one_before_is_next(tmp_path) -> None:
    files = Checkpoint(tmp_path / "run", {"seed": 1})
    assert files.load() is None
    for number in range(3):
        files.save({"step": number})
    assert files.load() == {"step": 2}
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["before.pt", "last.pt"]
    (tmp_path / "run" / "last.pt").unlink()
    assert files.load() == {"step": 1}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused_with_the_way_out(tmp_path, share) -> None:
    files = Checkpoint(tmp_path, {})
    files.save({"weight": torch.ones(100)})
    files.save({"weight": torch.zeros(100)})
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[: int(share * last.stat().st_size)])
    with pytest.raises(TikhonError, match=r"last\.pt is damaged.*Delete it to go on from .*before\.pt"):
        files.load()
    last.unlink()
    found = files.load()
    assert found is not None
    assert torch.equal(found["weight"], torch.ones(100))


class Hostile:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_file_runs_nothing(tmp_path) -> None:
    ran = tmp_path / "ran"
    for name, save in (("torch", torch.save), ("pickle", lambda value, path: path.write_bytes(pickle.dumps(value)))):
        folder = tmp_path / name
        folder.mkdir()
        save({"format": 1, "identity": {}, "state": Hostile(ran)}, folder / "last.pt")
        with pytest.raises(TikhonError, match="nothing in it was run"):
            Checkpoint(folder, {}).load()
    assert not ran.exists()


def test_another_training_and_another_format_are_refused(tmp_path) -> None:
    Checkpoint(tmp_path, {"seed": 1, "epochs": 3}).save({})
    with pytest.raises(TikhonError, match="another training: its epochs is 3, this one's 4"):
        Checkpoint(tmp_path, {"seed": 1, "epochs": 4}).load()
    checkpoint.write(tmp_path / "last.pt", [1, 2])
    with pytest.raises(TikhonError, match="no checkpoint of this version"):
        Checkpoint(tmp_path, {}).load()
    with pytest.raises(TikhonError, match="There is no"):
        checkpoint.read(tmp_path / "missing.pt")
    with pytest.raises(TikhonError, match="a folder of their own"):
        Checkpoint(tmp_path / "last.pt", {})


def test_fit_goes_on_after_an_exception_and_refuses_another_recipe(tmp_path) -> None:
    inputs, labels = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3

    def run(folder, *methods, stop=None):
        def on_epoch(epoch, history):
            if epoch == stop:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        return tikhon.fit(
            nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)),
            tikhon.Recipe(*methods),
            (inputs, labels),
            epochs=5,
            batch_size=8,
            metrics={"loss": lambda model: float(model(inputs).sum())},
            on_epoch=on_epoch,
            checkpoint=folder,
        )

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", tikhon.ELR(), tikhon.EMA(0.9), stop=2)
    resumed, history = run(tmp_path / "stopped", tikhon.ELR(), tikhon.EMA(0.9))
    plain, expected = run(None, tikhon.ELR(), tikhon.EMA(0.9))
    assert history.train_loss == expected.train_loss
    assert history.metrics == expected.metrics
    assert all(torch.equal(one, other) for one, other in zip(resumed.parameters(), plain.parameters(), strict=True))
    with pytest.raises(TikhonError, match="recipe with elr, ema"):
        run(tmp_path / "stopped", tikhon.MixUp())


@pytest.mark.parametrize(
    ("methods", "seed", "width", "says"),
    [
        ([tikhon.NestedDropout()], 0, 8, "recipe with ema"),
        ([tikhon.EMA(0.9)], 1, 8, "recipe with seed=0"),
        ([tikhon.EMA(0.9)], 0, 9, r"another model: 0\.weight is of shape \(8, 4\) there and of shape \(9, 4\) here"),
    ],
    ids=["recipe", "seed", "model"],
)
def test_a_refused_checkpoint_leaves_the_model_as_it_was(tmp_path, methods, seed, width, says) -> None:
    data = torch.randn(8, 4), torch.arange(8) % 3

    def run(model, recipe):
        return tikhon.fit(model, recipe, data, epochs=1, checkpoint=tmp_path)

    run(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), tikhon.Recipe(tikhon.EMA(0.9)))
    model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3))
    recipe = tikhon.Recipe(*methods, seed=seed)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TikhonError, match=says):
        run(model, recipe)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if width == 8:  # known to be foreign before the model is prepared
        assert recipe.model is None
