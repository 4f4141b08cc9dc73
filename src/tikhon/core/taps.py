"""Taps: named intermediate features, recorded once in a pass and shared by all methods that ask."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tikhon.core.autocast import narrowed, widened
from tikhon.core.checkpointing import refuse_features_without_gradient
from tikhon.core.errors import TikhonError
from tikhon.core.parameters import find_module


@dataclass(frozen=True, eq=False)
class Feature:
    """What went into a module and what came out of it, in its first call of the pass. Under autocast in float32: a copy
    then, on which the model's output does not depend."""

    input: Any
    output: Any


class Taps:
    """Records modules' inputs and outputs, only inside a pass that the recipe started."""

    def __init__(self) -> None:
        self._handles: dict[str, RemovableHandle] = {}
        self._features: dict[str, Feature] = {}
        self._recording = False
        self._with_gradient = False
        self._narrow: list[str] = []

    def place(self, model: nn.Module, name: str, method: str) -> None:
        """Put a tap on the module called `name`, if there is none yet."""
        if name in self._handles:
            return
        tapped = find_module(model, name, method)
        # Weak, so that a copy of the model neither records into this recipe nor keeps it alive.
        here, original = weakref.ref(self), weakref.ref(tapped)

        def record(module: nn.Module, args: Any, output: Any) -> None:
            taps = here()
            if taps is not None and taps._recording and module is original() and name not in taps._features:
                if taps._with_gradient and not torch.is_grad_enabled():
                    refuse_features_without_gradient(name)
                taps._features[name] = Feature(args[0] if len(args) == 1 else args, output)
                if narrowed(args) or narrowed(output):
                    taps._narrow.append(name)

        self._handles[name] = tapped.register_forward_hook(record)

    @contextmanager
    def recording(self) -> Iterator[dict[str, Feature]]:
        """A pass: the features it records, by name."""
        outer = self._features, self._recording, self._with_gradient, self._narrow
        self._features, self._recording, self._with_gradient, self._narrow = {}, True, torch.is_grad_enabled(), []
        try:
            yield self._features
            for name in self._narrow:  # after the pass, which may be compiled
                feature = self._features[name]
                self._features[name] = Feature(widened(feature.input), widened(feature.output))
        finally:
            self._features, self._recording, self._with_gradient, self._narrow = outer

    def feature(self, features: dict[str, Feature], name: str) -> Feature:
        if name not in features:
            raise TikhonError(
                f"The tap on {name!r} recorded nothing in this pass: the module was not called, or it was not asked "
                "for (a method lists what it taps in `taps(model)`)."
            )
        return features[name]

    @property
    def placed(self) -> bool:
        return bool(self._handles)

    def remove(self) -> None:
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._features = {}
