"""The networks that studies and the command line train, small ones that fit any task, or the user's own."""

from collections.abc import Callable
from math import prod

import torch
from torch import nn

from tikhon.core.errors import TikhonError
from tikhon.data.names import call_user, unknown
from tikhon.data.reference_models import ode, resnet20, transformer
from tikhon.data.seeds import derive
from tikhon.data.task import Task


def build_model(name: str, task: Task, *, seed: int) -> nn.Module:
    """A fresh network for a task; its initial weights depend on the seed only.

    name: "mlp" (any inputs; two hidden layers of 256), "cnn" (images and 1-D signals; about 58,000 weights for ten
    classes), "resnet20", "transformer" (images), "ode" (any inputs), or `module:function`, which is called with the
    task and returns an `nn.Module`.
    The output is (B, classes) for classes and has the shape of the target for values.
    Errors: TikhonError for an unknown name, inputs that do not suit the network, a user's model that does not fit.
    """
    # torch's initialisers know no generator but the global one. It is put back afterwards: nobody else sees a change.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, "initial weights"))
        if ":" in name:
            return _user_model(name, task)
        if name not in MODELS:
            raise unknown("model", name, [*MODELS, "module:function"])
        return MODELS[name](task)


def mlp(task: Task) -> nn.Sequential:
    """Two hidden layers of 256 with ReLU on the flattened input."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(task.input_shape), 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        *_head(256, task),
    )


def cnn(task: Task) -> nn.Sequential:
    """Three convolutions with batch normalisation. A 1-D kernel of 9 has as many weights as one of 3x3."""
    shape = task.input_shape
    if len(shape) not in (2, 3) or min(shape[1:]) < 4:
        raise TikhonError(
            f"the model cnn needs images (channels, height, width) or signals (channels, length), each side at least "
            f"4; the inputs of {task.name} have shape {shape}. Use mlp"
        )
    layers = _image_layers(shape[0]) if len(shape) == 3 else _signal_layers(shape[0])
    return nn.Sequential(*layers, nn.Flatten(), *_head(64 * 4, task))


def _image_layers(channels: int) -> list[nn.Module]:
    """(B, channels, H, W) -> (B, 64, 2, 2)."""
    return [
        *_block(nn.Conv2d(channels, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)),
        nn.MaxPool2d(2),
        *_block(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)),
        nn.MaxPool2d(2),
        *_block(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)),
        nn.AdaptiveAvgPool2d(2),
    ]


def _signal_layers(channels: int) -> list[nn.Module]:
    """(B, channels, L) -> (B, 64, 4)."""
    return [
        *_block(nn.Conv1d(channels, 32, 9, padding=4, bias=False), nn.BatchNorm1d(32)),
        nn.MaxPool1d(2),
        *_block(nn.Conv1d(32, 64, 9, padding=4, bias=False), nn.BatchNorm1d(64)),
        nn.MaxPool1d(2),
        *_block(nn.Conv1d(64, 64, 9, padding=4, bias=False), nn.BatchNorm1d(64)),
        nn.AdaptiveAvgPool1d(4),
    ]


def _block(convolution: nn.Module, normalisation: nn.Module) -> list[nn.Module]:
    return [convolution, normalisation, nn.ReLU()]


def _head(features: int, task: Task) -> list[nn.Module]:
    """The last layer; values (B,) get an output (B,), because (B, 1) against (B,) would broadcast in a loss."""
    last = nn.Linear(features, task.outputs)
    return [last, nn.Flatten(0)] if task.kind == "values" and task.train.target.ndim == 1 else [last]


def _user_model(spec: str, task: Task) -> nn.Module:
    model = call_user(spec, task, what="model")
    if not isinstance(model, nn.Module):
        raise TikhonError(f"model function {spec!r} returned {type(model).__name__}; expected an nn.Module")
    expected = (2, task.outputs) if task.kind == "classes" else (2, *task.train.target.shape[1:])
    modes = {module: module.training for module in model.modules()}
    model.eval()  # a look at the output's shape must not move running statistics
    try:
        with torch.no_grad():
            output = model(task.train.inputs[:2])
    except Exception as error:
        raise TikhonError(
            f"model {spec!r} cannot take inputs of shape {task.input_shape}: {type(error).__name__}: {error}"
        ) from error
    for module, training in modes.items():
        module.training = training
    if not isinstance(output, torch.Tensor) or output.shape != expected:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise TikhonError(f"model {spec!r} gave {found} for two samples; the task {task.name} needs {expected}")
    return model


MODELS: dict[str, Callable[[Task], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet20": resnet20,
    "transformer": transformer,
    "ode": ode,
}
