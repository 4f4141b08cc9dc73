"""Hugging Face's Trainer: the plain loop's weights, accumulation, resuming, evaluation, logs, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PretrainedConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import tikhon
from tikhon import TikhonError
from tikhon.core.terms import Term
from tikhon.integrations.transformers import DoctorCallback, RecipeTrainer

from .common import BATCH, EPOCHS, SAMPLES, data, graphs, loader, network, overflowing, plainly, recipe, same

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """A model in Hugging Face's manner: keywords in, a dict out, with its own loss where labels are given."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.config = network(), PretrainedConfig()

    def forward(self, x, labels=None, **kwargs):
        logits = self.net(x)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, number: int):
        x, y = data()
        return {"x": x[number], "labels": int(y[number])}


class InOrder(RecipeTrainer):
    """Batches in the order of the other frameworks' tests."""

    def get_train_dataloader(self):
        order = torch.cat([index for index, _, _ in loader()]).tolist()
        dataset = torch.utils.data.Subset(self.train_dataset, order)
        return torch.utils.data.DataLoader(dataset, BATCH, collate_fn=self.data_collator)


def arguments(folder, **settings):
    return TrainingArguments(
        folder,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        disable_tqdm=True,
        **{
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": BATCH,
            "remove_unused_columns": False,
            "report_to": [],
            "save_strategy": "no",
            **settings,
        },
    )


def trainer(folder, callbacks=(), **settings):
    mine = recipe(target="labels", output="logits")
    model = Net()
    made = InOrder(
        model,
        arguments(folder, **settings),
        train_dataset=tikhon.data.indexed(Rows()),
        eval_dataset=Rows(),
        recipe=mine,
        samples=SAMPLES,
        callbacks=list(callbacks),
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    )
    return mine, model, made


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_weights_of_the_plain_loop(tmp_path, accumulate) -> None:
    mine, model, training = trainer(tmp_path, gradient_accumulation_steps=accumulate)
    training.train()
    expected, plain = plainly(accumulate)
    assert mine.step == expected.step
    assert mine.epoch == EPOCHS
    close(model.net, plain, exact=accumulate == 1)
    close(mine.export().net, expected.export(), exact=accumulate == 1)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("precision", "cast"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_has_the_weights_of_the_plain_loop(tmp_path, precision, cast, accumulate) -> None:
    mine, model, training = trainer(tmp_path, gradient_accumulation_steps=accumulate, **{precision: True})
    if precision == "fp16":  # which Accelerate leaves out on CPUs
        training.accelerator.native_amp, training.accelerator.scaler = True, overflowing()
    training.train()
    expected, plain = plainly(accumulate, cast=cast)
    assert mine.step == expected.step
    assert (mine.step < EPOCHS * SAMPLES // BATCH // accumulate) == (cast is torch.float16)
    close(model.net, plain, exact=accumulate == 1)
    close(mine.export().net, expected.export(), exact=accumulate == 1)


def test_compiled_it_has_the_weights_of_the_plain_loop(tmp_path) -> None:
    graphs()
    mine, model, training = trainer(tmp_path, torch_compile=True, torch_compile_backend="eager")
    training.train()
    expected, plain = plainly()
    assert graphs() == 1
    same(model.net, plain)
    same(mine.export().net, expected.export())


def close(one, other, exact) -> None:
    """To the bit; where micro-batches are divided before and not after they are added, to rounding."""
    if exact:
        same(one, other)
    else:
        for mine, yours in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-5)


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 8


def test_a_resumed_run_has_the_weights_of_an_undisturbed_one(tmp_path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 4}
    _, _, first = trainer(tmp_path, [Stop()], **saved)
    first.train()
    assert torch.load(tmp_path / "checkpoint-4" / "recipe.pt", weights_only=True)["clock"]["number"] == 4
    mine, model, second = trainer(tmp_path, **saved)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    expected, undisturbed, third = trainer(tmp_path / "third")
    third.train()
    same(model.net, undisturbed.net)
    same(mine.export().net, expected.export().net)


def test_evaluation_sees_the_average_and_training_goes_on(tmp_path) -> None:
    _, model, training = trainer(tmp_path, eval_strategy="epoch")
    training.train()
    expected, plain = plainly()
    same(model.net, plain)
    losses = [entry["eval_loss"] for entry in training.state.log_history if "eval_loss" in entry]
    assert len(losses) == EPOCHS
    x, y = data()
    with expected.deployed() as deployed, torch.no_grad():
        average = F.cross_entropy(deployed.eval()(x), y).item()
    assert losses[-1] == pytest.approx(average, rel=1e-5)
    assert losses[-1] != pytest.approx(F.cross_entropy(plain.eval()(x), y).item(), rel=1e-5)


def test_what_the_recipe_knows_is_logged(tmp_path) -> None:
    _, _, training = trainer(tmp_path, logging_steps=6)
    training.train()
    strengths = [entry["elr/strength"] for entry in training.state.log_history if "elr/strength" in entry]
    assert len(strengths) == EPOCHS
    assert 0.0 < strengths[0] < strengths[1] < strengths[2] <= 3.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"label_smoothing_factor": 0.1}, "LabelSmoothing"),
        ({"remove_unused_columns": True}, "remove_unused_columns=False"),
    ],
)
def test_what_would_go_wrong_is_refused(tmp_path, settings, says) -> None:
    with pytest.raises(TikhonError, match=says):
        trainer(tmp_path, **settings)


def test_a_second_owner_of_the_loss_is_refused(tmp_path) -> None:
    with pytest.raises(TikhonError, match="base="):
        RecipeTrainer(
            Net(),
            arguments(tmp_path),
            recipe=tikhon.Recipe(target="labels", output="logits"),
            compute_loss_func=lambda outputs, labels, **_: outputs["loss"],
        )


def test_a_checkpoint_without_a_recipe_is_refused(tmp_path) -> None:
    plain = Trainer(Net(), arguments(tmp_path, save_strategy="epoch"), train_dataset=Rows())
    plain.train()
    _, _, training = trainer(tmp_path)
    with pytest.raises(TikhonError, match=r"no recipe\.pt"):
        training.train(resume_from_checkpoint=True)


class Pulls(tikhon.Method):
    """Pulls what a layer puts out towards zero."""

    card = tikhon.SAM.card

    def taps(self, model):
        return ["bert.encoder.layer.0"]

    def terms(self, output, target, step):
        features = step.tap("bert.encoder.layer.0").output
        features = features[0] if isinstance(features, tuple) else features
        return {self.key: Term(features.square().flatten(1).mean(1), 0.1)}


class Sentences(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, number: int):
        words = torch.randint(50, (7,), generator=torch.Generator().manual_seed(number))
        return {"input_ids": words, "labels": int(words[0]) % 3}


def encoder(folder, **settings) -> nn.Module:
    """A small transformer after three steps with a tap, a second pass and an average."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=3, **sizes))
    mine = tikhon.Recipe(Pulls(), tikhon.SAM(0.1), tikhon.EMA(0.5), target="labels", output="logits")
    settings = {"per_device_train_batch_size": 8, "num_train_epochs": 1, **settings}
    RecipeTrainer(model, arguments(folder, **settings), train_dataset=Sentences(), recipe=mine).train()
    assert mine.step == 3
    return mine.export()


@pytest.mark.parametrize("precision", [{}, {"bf16": True}], ids=["float32", "bfloat16"])
def test_gradient_checkpointing_trains_the_same_weights(tmp_path, precision) -> None:
    checkpointed, plain = (encoder(tmp_path, gradient_checkpointing=on, **precision) for on in (True, False))
    same(checkpointed, plain)


def test_checkpoints_in_which_features_have_no_gradient_are_refused(tmp_path) -> None:
    with pytest.raises(TikhonError, match="use_reentrant=False"):
        encoder(tmp_path, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True})


def doctor() -> tikhon.Doctor:
    return tikhon.Doctor(data(), data(), call=lambda model, x: model(x)["logits"])


def test_a_doctor_sees_every_epoch_of_what_export_would_give_and_changes_nothing(tmp_path) -> None:
    mine, model, training = trainer(tmp_path)
    watching = doctor()
    training.add_callback(DoctorCallback(watching, mine))
    training.train()
    _, plain = plainly()
    same(model.net, plain)
    finished = mine.export()
    x, y = data()
    with torch.no_grad():
        expected = F.cross_entropy(finished.eval()(x)["logits"], y).item()
    assert watching.history["test_loss"][-1] == pytest.approx(expected, rel=1e-5)
    logged = [entry for entry in training.state.log_history if "doctor_test_metric" in entry]
    assert [entry["doctor_test_metric"] for entry in logged] == watching.history["test_metric"]
    assert len(logged) == EPOCHS
    assert "duplicates" in [one.name for one in watching.examine(finished).findings]  # it was tested on what it learned


def test_a_doctor_in_a_plain_trainer_goes_on_where_a_checkpoint_was(tmp_path) -> None:
    def plain(folder, watching):
        torch.manual_seed(0)
        settings = arguments(folder, save_strategy="epoch", seed=0)
        return Trainer(Net(), settings, train_dataset=Rows(), callbacks=[DoctorCallback(watching)])

    whole, rest = doctor(), doctor()
    plain(tmp_path, whole).train()
    plain(tmp_path / "other", rest).train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{SAMPLES // BATCH}"))
    assert len(whole.history["test_loss"]) == EPOCHS
    assert rest.history == whole.history
