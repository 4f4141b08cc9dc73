"""What a recipe knows arrives in the trackers that people have: TensorBoard, and MLflow by its skinny client."""

from __future__ import annotations

import mlflow
import pytest
import torch
from accelerate import Accelerator
from lightning.pytorch.loggers import MLFlowLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import MLflowCallback

import tikhon
from tikhon.integrations.lightning import RecipeCallback

from . import test_lightning, test_transformers
from .common import BATCH, SAMPLES, loader, network, recipe

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = {"loss/task", "loss/elr/agreement", "elr/strength", "l2/strength", "sparsity"}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """MLflow's own store in a folder."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    return uri


def plainly(log):
    """A loop of one's own that logs every third step; half of the samples are left out."""
    mine = tikhon.Recipe(
        tikhon.ELR(strength=tikhon.linear(0.0, 3.0)),
        tikhon.L2(1e-3),
        tikhon.DataDiet(0.5, scores=torch.arange(float(SAMPLES))),
    )
    model = mine.prepare(network(), samples=SAMPLES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    mine.attach(optimizer, steps=SAMPLES // BATCH, epochs=1)
    logged = {}
    for index, x, y in loader():
        optimizer.zero_grad()
        mine.loss(x, y, index=index).backward()
        optimizer.step()
        if mine.step % 3 == 0:
            logged[mine.step] = mine.log()
            log(logged[mine.step], mine.step)
    assert logged.keys() == {3, 6}
    assert logged[6]["skipped/samples"] == SAMPLES // 2
    return logged


def history(run, name):
    return {one.step: one.value for one in mlflow.MlflowClient().get_metric_history(run, name)}


def test_a_plain_loop_logs_to_mlflow(store):
    with mlflow.start_run() as run:
        logged = plainly(lambda values, step: mlflow.log_metrics(values, step=step))
    assert set(logged[6]) > NAMES
    for name in logged[6]:
        assert history(run.info.run_id, name) == {step: values[name] for step, values in logged.items()}


def test_a_plain_loop_logs_to_tensorboard(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        logged = plainly(lambda values, step: [writer.add_scalar(*one, step) for one in values.items()])
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(logged[6])
    for name in logged[6]:
        found = {one.step: one.value for one in events.Scalars(name)}
        assert found == pytest.approx({step: values[name] for step, values in logged.items()})


def test_accelerate_logs_to_its_trackers(tmp_path):
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerator.init_trackers("ours")
    logged = plainly(lambda values, step: accelerator.log(values, step=step))
    accelerator.end_training()
    events = EventAccumulator(str(tmp_path / "ours")).Reload()
    assert set(events.Tags()["scalars"]) == set(logged[6])
    assert [one.value for one in events.Scalars("skipped/samples")] == [
        logged[step]["skipped/samples"] for step in (3, 6)
    ]


def test_lightning_logs_to_mlflow(tmp_path, store):
    mine = recipe()
    logger = MLFlowLogger(tracking_uri=store)
    training = test_lightning.trainer(
        tmp_path, RecipeCallback(mine, at="net", samples=SAMPLES), logger=logger, log_every_n_steps=3, epochs=1
    )
    training.fit(test_lightning.Module(mine), loader())
    assert history(logger.run_id, "loss/task").keys() == {3, 6}
    strengths = history(logger.run_id, "elr/strength")
    assert 0.0 < strengths[3] < strengths[6] <= 3.0
    assert history(logger.run_id, "sparsity").keys() == {3, 6}


def test_trainer_logs_to_mlflow(tmp_path):
    _, _, training = test_transformers.trainer(tmp_path, logging_steps=6, report_to=["mlflow"])
    assert any(isinstance(one, MLflowCallback) for one in training.callback_handler.callbacks)
    training.train()
    run = mlflow.last_active_run().info.run_id
    mlflow.end_run()
    assert history(run, "loss").keys() >= {6, 12, 18}  # Trainer's own
    assert history(run, "loss_task").keys() == history(run, "loss_elr/agreement").keys() == {6, 12, 18}
    assert history(run, "elr/strength")[18] > history(run, "elr/strength")[6] > 0.0
    assert history(run, "sparsity").keys() == {6, 12, 18}
