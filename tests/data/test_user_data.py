"""The user's own `module:function`, and everything that can be wrong with it."""

import sys

import pytest
import torch

from tikhon.core.errors import TikhonError
from tikhon.data import load_task

HEADER = """
import numpy as np
import torch
rng = np.random.default_rng(0)
x = rng.normal(size=(60, 4))
y = np.arange(60) % 3
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write my_data.py into the current directory; forget it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(body):
        (tmp_path / "my_data.py").write_text(f"{HEADER}\ndef load():\n    {body}\n")

    yield write
    sys.modules.pop("my_data", None)


def test_arrays_are_split_by_us(write):
    write("return x, y")
    path = list(sys.path)
    task = load_task("my_data:load", seed=0)
    assert (task.kind, task.classes, task.input_shape) == ("classes", 3, (4,))
    assert len(task.train) + len(task.validation) + len(task.test) == 60
    assert sys.path == path


@pytest.mark.parametrize(
    ("body", "shape", "outputs"),
    [
        ("return x.tolist(), x[:, 0].tolist()", (), 1),
        ("return torch.tensor(x), torch.tensor(x[:, :2], dtype=torch.bfloat16)", (2,), 2),
    ],
)
def test_floating_targets_are_values_in_the_shape_they_came(write, body, shape, outputs):
    write(body)
    task = load_task("my_data:load", seed=0)
    assert (task.kind, task.classes, task.outputs) == ("values", None, outputs)
    assert task.train.target.shape[1:] == shape
    assert task.train.target.dtype == torch.float32


def test_ready_splits_are_kept(write):
    write("return {'train': (x[:30], y[:30]), 'validation': (x[30:40], y[30:40]), 'test': (x[40:], y[40:])}")
    task = load_task("my_data:load", seed=0)
    import my_data

    torch.testing.assert_close(task.train.inputs, torch.tensor(my_data.x[:30], dtype=torch.float32))
    assert torch.equal(task.validation.target, torch.tensor(my_data.y[30:40]))
    assert torch.equal(task.test.target, torch.tensor(my_data.y[40:]))


def test_a_missing_validation_split_is_drawn_from_training(write):
    write("return {'train': (x[:50], y[:50]), 'test': (x[50:], y[50:])}")
    task = load_task("my_data:load", seed=0)
    assert (len(task.train), len(task.validation), len(task.test)) == (40, 10, 10)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return x[:0], y[:0]", "is empty"),
        ("return x, np.zeros(60, int)", "one class only"),
        ("return x, np.zeros(60)", "nothing to learn"),
        ("return x, y[:50]", "60 inputs but 50 targets"),
        ("x[17, 2] = np.nan; return x, y", "NaN or infinite in 1 of 60 samples, first in sample 17"),
        ("return x * 1e300, y", "NaN or infinite in 60"),
        ("return x, np.where(y == 0, np.inf, y)", "the target of my_data:load: NaN or infinite in 20"),
        ("return x, y - 1", "found -1"),
        ("return x, y * 2", "label 1 is missing; renumber them 0 .. 2"),
        ("return x, y + 10**12", "label 0 is missing"),
        ("return x, y[:, None]", r"expected \(samples,\) for integer labels"),
        ("return x[:, 0], y", r"expected \(samples, features, ...\)"),
        ("return x.astype(str), y", "expected integers or floating numbers, found <U"),
        ("return x, y.astype(bool)", "found bool"),
        ("return x, torch.tensor(y) > 0", "found torch.bool"),
        ("return x + 1j, y", "found complex128"),
        ("return [[1.0], [1.0, 2.0]], [0, 1]", "not a rectangular array"),
        ("return x", "returned ndarray; expected"),
        ("return x, y, x", "returned tuple; expected"),
        ("return {'train': (x, y)}", "without the key 'test'"),
        ("return {'train': (x, y), 'test': (x, y), 'valid': (x, y)}", "Did you mean 'validation'"),
        ("return {'train': (x, y), 'test': x}", "'test' is ndarray; expected a pair"),
        ("return {'train': (x, y), 'test': (x[:, :3], y)}", r"shape \(3,\) a sample, those of training \(4,\)"),
        ("return {'train': (x, y), 'test': (x, y + 1)}", "holds label 3, training only 0 .. 2"),
        ("return {'train': (x, y), 'test': (x, y * 1.0)}", "same type and shape"),
        ("return x, np.where(np.arange(60) < 2, 1, 0)", r"class 1 has 2 sample\(s\), but 3 splits need one each"),
        ("return x[:4], x[:4, 0]", "needs at least 5"),
        ("raise KeyError('no such file')", "raised KeyError: 'no such file'"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(write, body, message):
    write(body)
    with pytest.raises(TikhonError, match=message):
        load_task("my_data:load", seed=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_data:laod", "Did you mean 'load'"),
        ("my_data:rng", "is Generator, not a function"),
        ("my_dta:load", "no module 'my_dta'"),
        ("my_data:", "not of the form module:function"),
        (":load", "not of the form module:function"),
        ("broken:load", "importing 'broken' raised ZeroDivisionError"),
        ("my_data:needy", "must be callable with no arguments"),
    ],
)
def test_a_function_that_is_not_there_or_does_not_fit(write, tmp_path, spec, message):
    write("return x, y\ndef needy(path):\n    pass")
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(TikhonError, match=message):
        load_task(spec, seed=0)


def test_later_changes_to_the_users_arrays_do_not_reach_the_task(write):
    write("return {'train': (x, y), 'validation': (x, y), 'test': (torch.tensor(x), torch.tensor(y))}")
    task = load_task("my_data:load", seed=0)
    before = task.train.inputs.clone()
    sys.modules["my_data"].x[:] = 0
    assert torch.equal(task.train.inputs, before)
