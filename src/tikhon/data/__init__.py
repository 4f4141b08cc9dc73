"""The tasks, corruptions and small networks that studies and the command line run on, and `indexed` for your own."""

from tikhon.data.corruptions import (
    asymmetric_noise,
    blur,
    gaussian_noise,
    imbalance,
    rotate,
    symmetric_noise,
    value_noise,
)
from tikhon.data.indexed import indexed
from tikhon.data.load import load_task
from tikhon.data.models import build_model
from tikhon.data.sources import TASKS, list_tasks
from tikhon.data.task import Split, Task

__all__ = [
    "TASKS",
    "Split",
    "Task",
    "asymmetric_noise",
    "blur",
    "build_model",
    "gaussian_noise",
    "imbalance",
    "indexed",
    "list_tasks",
    "load_task",
    "rotate",
    "symmetric_noise",
    "value_noise",
]
