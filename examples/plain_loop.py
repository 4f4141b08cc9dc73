"""Digits with 40% wrong labels in a loop of your own, in one process or several.

    python examples/plain_loop.py
    python examples/plain_loop.py --processes 2
    python examples/plain_loop.py --tensorboard runs

Each process has its share of every batch; what ELR remembers is shared between them. With --tensorboard what the recipe
knows of the training is logged there, epoch by epoch: `tensorboard --logdir runs`.
"""

import argparse
import os

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import tikhon as tk

BATCH = 128


def main(process: int, processes: int, epochs: int, logs: str | None) -> None:
    if processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}
        torch.distributed.init_process_group("gloo", rank=process, world_size=processes)
    task = tk.data.load_task("digits", seed=0, label_noise=0.4)
    train = tk.data.indexed(TensorDataset(task.train.inputs, task.train.target))
    sampler = DistributedSampler(train, processes, process)
    loader = DataLoader(train, BATCH // processes, sampler=sampler)

    recipe = tk.Recipe(tk.ELR(), tk.MixUp())
    model = recipe.prepare(tk.data.build_model("mlp", task, seed=0), samples=len(train))
    called = DistributedDataParallel(model) if processes > 1 else model
    optimizer = torch.optim.SGD(called.parameters(), lr=0.1, momentum=0.9)
    recipe.attach(optimizer, model=called, epochs=epochs)

    writer = None
    if logs and process == 0:
        from torch.utils.tensorboard import SummaryWriter  # which needs the package tensorboard

        writer = SummaryWriter(logs)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for index, inputs, target in loader:
            optimizer.zero_grad()
            recipe.loss(inputs, target, index=index).backward()
            optimizer.step()
        if writer:
            for name, value in recipe.log().items():
                writer.add_scalar(name, value, recipe.step)
        recipe.end_epoch()
    if writer:
        writer.close()

    finished = recipe.export().eval()
    accuracy = (finished(task.test.inputs).argmax(1) == task.test.target).float().mean()
    if process == 0:
        print(f"test accuracy {accuracy:.3f}")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--tensorboard", metavar="FOLDER")
    given = parser.parse_args()
    if given.processes == 1:
        main(0, 1, given.epochs, given.tensorboard)
    else:
        torch.multiprocessing.spawn(main, (given.processes, given.epochs, given.tensorboard), nprocs=given.processes)
