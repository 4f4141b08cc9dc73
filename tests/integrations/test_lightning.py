"""Lightning: the plain loop's weights, accumulation, resuming, validation of the finished model, and logs."""

from __future__ import annotations

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.nn import functional as F

import tikhon
from tikhon.integrations.lightning import DoctorCallback, RecipeCallback

from .common import BATCH, EPOCHS, SAMPLES, data, graphs, loader, network, optimizer, overflowing, plainly, recipe, same

pytestmark = pytest.mark.filterwarnings("ignore")


class Module(lightning.LightningModule):
    def __init__(self, mine) -> None:
        super().__init__()
        self.net, self.mine, self.seen = network(), [mine], []

    def training_step(self, batch, batch_idx):
        return self.mine[0].loss(batch)

    def validation_step(self, batch, batch_idx):
        self.seen.append(F.cross_entropy(self.net(batch[1]), batch[2]))

    def configure_optimizers(self):
        return optimizer(self.net.parameters())


def trainer(folder, *callbacks, epochs=EPOCHS, **settings):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{"logger": False, "enable_checkpointing": False, **settings},
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_weights_of_the_plain_loop(tmp_path, accumulate) -> None:
    mine = recipe()
    module = Module(mine)
    callback = RecipeCallback(mine, at="net", samples=SAMPLES)
    trainer(tmp_path, callback, accumulate_grad_batches=accumulate).fit(module, loader())
    expected, model = plainly(accumulate)
    same(module.net, model)
    assert mine.step == expected.step
    assert mine.epoch == EPOCHS
    same(mine.export(), expected.export())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
def test_mixed_precision_has_the_weights_of_the_plain_loop(tmp_path, cast, accumulate) -> None:
    half = MixedPrecision("16-mixed", "cpu", overflowing())
    settings = {"precision": "bf16-mixed"} if cast is torch.bfloat16 else {"plugins": [half]}
    mine = recipe()
    module = Module(mine)
    callback = RecipeCallback(mine, at="net", samples=SAMPLES)
    trainer(tmp_path, callback, accumulate_grad_batches=accumulate, **settings).fit(module, loader())
    expected, model = plainly(accumulate, cast=cast)
    steps = EPOCHS * SAMPLES // BATCH // accumulate
    assert mine.step == expected.step
    assert (mine.step < steps) == (cast is torch.float16)
    same(module.net, model)
    same(mine.export(), expected.export())


@pytest.mark.parametrize("what", ["network", "module"])
def test_compiled_it_has_the_weights_of_the_plain_loop(tmp_path, what) -> None:
    graphs()
    mine = recipe()
    module = Module(mine)
    if what == "network":
        module.net = torch.compile(module.net, backend="eager", fullgraph=True)
    fitted = module if what == "network" else torch.compile(module, backend="eager")
    trainer(tmp_path, RecipeCallback(mine, at="net", samples=SAMPLES)).fit(fitted, loader())
    expected, model = plainly()
    assert graphs() == 1 if what == "network" else graphs() > 1
    same(module.net, model)
    same(mine.export(), expected.export())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_has_the_weights_of_an_undisturbed_one(tmp_path, accumulate) -> None:
    third = recipe()
    undisturbed = Module(third)
    files = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1)
    callbacks = RecipeCallback(third, at="net", samples=SAMPLES), files
    settings = {"accumulate_grad_batches": accumulate}
    trainer(tmp_path, *callbacks, enable_checkpointing=True, **settings).fit(undisturbed, loader())
    path = tmp_path / "epoch=0.ckpt"
    assert "RecipeCallback" in "".join(torch.load(path, weights_only=True)["callbacks"])
    second = recipe()
    module = Module(second)
    rest = trainer(tmp_path, RecipeCallback(second, at="net", samples=SAMPLES), **settings)
    rest.fit(module, loader(), ckpt_path=path)
    assert second.step == third.step
    same(module.net, undisturbed.net)
    same(second.export(), third.export())


def test_validation_sees_the_average_and_training_goes_on_with_the_trained_weights(tmp_path) -> None:
    mine = recipe()
    module = Module(mine)
    training = trainer(tmp_path, RecipeCallback(mine, at="net", samples=SAMPLES), num_sanity_val_steps=0)
    training.fit(module, loader(), loader())
    _, model = plainly()
    same(module.net, model)
    losses = torch.stack(module.seen).reshape(EPOCHS, -1)
    with mine.deployed() as deployed:
        deployed.eval()
        last = torch.stack([F.cross_entropy(deployed(x), y) for _, x, y in loader()])
    torch.testing.assert_close(losses[-1], last)
    trained = torch.stack([F.cross_entropy(module.net.eval()(x), y) for _, x, y in loader()])
    assert not torch.allclose(last, trained)


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_what_the_recipe_knows_is_logged(tmp_path, kind) -> None:
    mine = recipe()
    logged = []
    logger = kind(tmp_path)
    write = logger.log_metrics
    logger.log_metrics = lambda values, step=None: (logged.append((step, dict(values))), write(values, step))
    training = trainer(
        tmp_path, RecipeCallback(mine, at="net", samples=SAMPLES), logger=logger, log_every_n_steps=6, epochs=2
    )
    training.fit(Module(mine), loader())
    ours = [(step, values) for step, values in logged if "loss/task" in values]
    assert [step for step, _ in ours] == [6, 12]
    assert 0.0 < ours[0][1]["elr/strength"] < ours[1][1]["elr/strength"] <= 3.0


def test_an_exception_in_validation_leaves_the_trained_weights(tmp_path) -> None:
    mine = recipe()

    class Broken(Module):
        def validation_step(self, batch, batch_idx):
            raise RuntimeError("broken")

    module = Broken(mine)
    trained = {}

    class Keep(lightning.Callback):
        def on_train_batch_end(self, *_):
            trained.update({name: value.clone() for name, value in module.net.state_dict().items()})

    with pytest.raises(RuntimeError, match="broken"):
        trainer(tmp_path, RecipeCallback(mine, at="net", samples=SAMPLES), Keep(), num_sanity_val_steps=0).fit(
            module, loader(), loader()
        )
    assert mine.step == SAMPLES // BATCH
    assert all(torch.equal(value, trained[name]) for name, value in module.net.state_dict().items())
    assert not torch.equal(mine.export()[0].weight, trained["0.weight"])


def losses(network) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([F.cross_entropy(network.eval()(x), y) for _, x, y in loader()])


class WithTest(Module):
    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)


@pytest.mark.parametrize("way", ["validate", "test"])
def test_before_any_training_the_module_is_seen_as_it_is(tmp_path, way) -> None:
    mine = recipe()
    module = WithTest(mine)
    before = losses(network())
    training = trainer(tmp_path, RecipeCallback(mine, at="net", samples=SAMPLES), epochs=1)
    getattr(training, way)(module, loader(), verbose=False)
    assert torch.equal(torch.stack(module.seen), before)
    training.fit(module, loader())
    same(module.net, plainly(epochs=1)[1])


@pytest.mark.parametrize("fresh", [False, True], ids=["after training", "in a new process"])
def test_a_checkpoint_is_tested_with_its_own_average(tmp_path, fresh) -> None:
    mine = recipe()
    module = WithTest(mine)
    files = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1)
    callbacks = RecipeCallback(mine, at="net", samples=SAMPLES), files
    training = trainer(tmp_path, *callbacks, enable_checkpointing=True, num_sanity_val_steps=0)
    training.fit(module, loader(), loader())
    validated = torch.stack(module.seen).reshape(EPOCHS, -1)
    if fresh:
        mine = recipe()
        module = WithTest(mine)
        training = trainer(tmp_path, RecipeCallback(mine, at="net", samples=SAMPLES))
    module.seen.clear()
    training.test(module, loader(), ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
    assert torch.equal(torch.stack(module.seen), validated[0])
    assert not torch.allclose(validated[0], validated[-1])


def test_a_doctor_sees_every_epoch_of_what_export_would_give_and_changes_nothing(tmp_path) -> None:
    mine, doctor = recipe(), tikhon.Doctor(data(), data())
    module = Module(mine)
    callbacks = RecipeCallback(mine, at="net", samples=SAMPLES), DoctorCallback(doctor, "net", mine)
    trainer(tmp_path, *callbacks).fit(module, loader())
    same(module.net, plainly()[1])
    finished = mine.export()
    x, y = data()
    with torch.no_grad():
        assert doctor.history["test_loss"][-1] == pytest.approx(F.cross_entropy(finished.eval()(x), y).item(), rel=1e-5)
    assert len(doctor.history["train_metric"]) == EPOCHS
    assert "duplicates" in [one.name for one in doctor.examine(finished).findings]  # it was tested on what it learned


def test_a_doctor_needs_no_recipe_and_goes_on_where_a_checkpoint_was(tmp_path) -> None:
    class Plain(Module):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[1]), batch[2])

    doctor = tikhon.Doctor(data(), data())
    files = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1)
    training = trainer(tmp_path, DoctorCallback(doctor, "net"), files, enable_checkpointing=True)
    training.fit(Plain(None), loader())
    again = tikhon.Doctor(data(), data())
    rest = trainer(tmp_path, DoctorCallback(again, "net"))
    rest.fit(Plain(None), loader(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert len(again.history["test_loss"]) == EPOCHS
    assert again.history == doctor.history
