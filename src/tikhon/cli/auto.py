"""`tikhon auto`: its options and its help."""

from __future__ import annotations

import importlib
from pathlib import Path

from tikhon.cli.options import (
    Address,
    BatchSize,
    Data,
    Epochs,
    Imbalance,
    Jobs,
    Json,
    LabelNoise,
    Model,
    NoiseKind,
    Optimizer,
    Shift,
    TrainSize,
    task_of,
)
from tikhon.cli.tune import Engine, LearningRate, Minutes, Out, Seed, Seeds, Storage, Trials


def auto(
    data: Data,
    label_noise: LabelNoise = 0.0,
    noise_kind: NoiseKind = "symmetric",
    train_size: TrainSize = None,
    imbalance: Imbalance = 1.0,
    shift: Shift = None,
    model: Model = "mlp",
    seeds: Seeds = 5,
    epochs: Epochs = None,
    batch_size: BatchSize = 128,
    optimizer: Optimizer = "sgd",
    learning_rate: LearningRate = None,
    minutes: Minutes = None,
    trials: Trials = None,
    seed: Seed = 0,
    out: Out = Path("tikhon-auto"),
    jobs: Jobs = 2,
    engine: Engine = "optuna",
    storage: Storage = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Measure data and a plain training, choose methods by the evidence, and search.

    A plain training and networks that have not seen a sample tell what is the
    matter: labels that look wrong, a gap between training and validation data,
    confidence that is not kept, rare classes. The methods with the best stored
    evidence against that are searched, together and alone, as `tikhon tune`
    does; the best is held against plain training that was searched for as long.

    Every finished run is stored at once. The same command continues where it
    was stopped.

      tikhon auto --data digits --label-noise 0.4 --minutes 10

      tikhon auto --data own_data:load --model own_data:network --minutes 60
    """
    automatic = importlib.import_module("tikhon.cli.automatic")  # not at the top: importing torch takes a second
    automatic.run(
        automatic.Settings(
            task=task_of(data, label_noise, noise_kind, train_size, imbalance, shift),
            methods="",
            model=model,
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=None,
        ),
        automatic.Effort(learning_rate=learning_rate, minutes=minutes, trials=trials, seed=seed, jobs=jobs),
        automatic.Where(out=out, engine=engine, storage=storage, address=address),
        as_json=json,
    )
