"""The run: what all moments of one training share - the model, the clock, the passes, the perturbation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tikhon.core.autocast import Precision, narrowed, widened
from tikhon.core.batches import call
from tikhon.core.errors import TikhonError
from tikhon.core.losses import Loss
from tikhon.core.parameters import Selected, Where, copy_into, every_parameter, select
from tikhon.core.passes import Passing, RandomState, frozen_statistics
from tikhon.core.shards import gradients_apart, let_go, part_of, whole_parameters
from tikhon.core.skipped import Skipped
from tikhon.core.step import Clock
from tikhon.core.strength import Learned
from tikhon.core.taps import Feature, Taps

if TYPE_CHECKING:
    from tikhon.core.method import Method


class Run:
    """State of a run that belongs to no single method."""

    def __init__(self, loss: Loss, seed: int, read_output: Any) -> None:
        self.loss = loss
        self.seed = seed
        self.read_output = read_output
        self.clock = Clock()
        self.skipped = Skipped()
        self.taps = Taps()
        self.precision = Precision()
        self.features: dict[str, Feature] = {}
        self.moment = ""
        self.names: dict[Learned, str] = {}  # METHOD/ARGUMENT of each learned strength
        self.reads: set[tuple[Learned, str]] | None = None  # in which moments they were read, while somebody watches
        self.passing = Passing()
        self.rank = 0
        self.world = 1
        self.sharded = False  # whether processes hold parts of the parameters
        self.reparameterised = False
        self.optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self._model: nn.Module | None = None
        self._first: nn.Parameter | None = None
        self._selections: dict[Where, list[Selected]] = {}
        self._rates: dict[int, dict[str, Any]] = {}
        self._owned: set[tuple[int, str]] = set()
        self._perturbed: list[tuple[list[Tensor], list[Tensor]]] = []
        self.inputs: Any = None  # of the pass in hand, as the model gets them
        self._original: Any = None
        self._changed = False
        self._clean: Tensor | None = None

    @property
    def model(self) -> nn.Module:
        if self._model is None:
            raise TikhonError("The recipe has no model yet: call recipe.prepare(model) first.")
        return self._model

    @property
    def prepared(self) -> bool:
        return self._model is not None

    def adopt(self, model: nn.Module) -> None:
        self._model = model

    # Parameters ------------------------------------------------------------------------------------------------------

    def own(self, optimizers: tuple[torch.optim.Optimizer, ...]) -> None:
        """Attach or, with none, detach optimizers."""
        self.optimizers = optimizers
        self._first = next(self.model.parameters(), None) if optimizers else None
        self._selections.clear()
        self._rates = {
            id(parameter): group
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

        # By place, not by leaf: between the passes a sharded model may hold other leaves than the optimizers.
        self._owned = (
            {(id(one.module), one.leaf_name) for one in every_parameter(self.model) if id(one.leaf) in self._rates}
            if optimizers
            else set()
        )

    def select(self, where: Where) -> list[Selected]:
        if where not in self._selections:
            found = select(self.model, where)
            owned = (
                [one for one in found if (id(one.module), one.leaf_name) in self._owned] if self.optimizers else found
            )
            if not owned:
                raise TikhonError(f"where={where!r} selects only parameters that no attached optimizer owns.")
            self._selections[where] = owned
        return [one for one in self._selections[where] if one.leaf.requires_grad]

    def learning_rate(self, leaf: Tensor) -> float | Tensor:
        rate: float | Tensor = self._rates[id(leaf)]["lr"]
        return rate

    def whole(self, methods: Iterable[Method], moving: bool = True) -> AbstractContextManager[None]:
        """Inside, sharded parameters are whole, unless all these methods can act on shards.

        moving: what was written into parameters and gradients returns to the shards.
        """
        return self._whole(methods, moving) if self.sharded else nullcontext()

    @contextmanager
    def _whole(self, methods: Iterable[Method], moving: bool) -> Iterator[None]:
        let_go(self.model)
        if not self.reparameterised and all(method.elementwise for method in methods):
            yield
            return
        with whole_parameters(self.model, moving) as shards:
            rates = {key: self._rates[id(leaf)] for key, leaf in shards.items() if id(leaf) in self._rates}
            self._rates |= rates
            try:
                yield
            finally:
                for key in rates:
                    del self._rates[key]

    def gradients(self, loss: Tensor, where: Where) -> tuple[list[Selected], list[Tensor]]:
        """Those of a selection that a loss depends on, and its gradients with respect to their leaves."""
        if self.sharded:
            owned = [leaf for one in self.optimizers for group in one.param_groups for leaf in group["params"]]
            by_leaf = gradients_apart(loss, owned)
            chosen = self.select(where)
            found = [by_leaf.get(id(one.leaf)) for one in chosen]
        else:
            chosen = self.select(where)
            found = list(torch.autograd.grad(loss, [one.leaf for one in chosen], allow_unused=True))
        pairs = [(one, gradient) for one, gradient in zip(chosen, found, strict=True) if gradient is not None]
        return [one for one, _ in pairs], [gradient for _, gradient in pairs]

    # Passes ----------------------------------------------------------------------------------------------------------

    def output(self, model: Any, inputs: Any) -> Tensor:
        if self.precision.plain:
            output = self.read_output(call(model, inputs))
        else:
            with self.precision.a_pass():
                output = self.read_output(call(model, inputs))
                output = widened(output) if narrowed(output) else output
        if not isinstance(output, Tensor):
            raise TikhonError(
                f"The model returned {type(output).__name__}, not a tensor: pass output= to the recipe, a key or a "
                "function that finds the prediction in it (for example output='logits')."
            )
        return output

    def begin_batch(self, original: Any, inputs: Any, mixed: bool) -> None:
        """Remember the inputs as the model gets them, and as they came in case a method asks for the clean output.

        mixed: whether the target is, so that the output is too, even where only features are mixed inside the model.
        """
        self.inputs, self._changed, self._clean = inputs, mixed or inputs is not original, None
        self._original = original if self._changed else None

    def end_batch(self) -> None:
        self.inputs, self._original, self._changed, self._clean = None, None, False, None
        self.features, self.reads = {}, None

    def clean(self, output: Tensor) -> Tensor:
        if not self._changed:
            return output.detach()
        if self._clean is None:
            with torch.no_grad():
                self._clean = self.extra_pass(self._original)
        return self._clean

    def extra_pass(self, inputs: Any, seed: int | None = None) -> Tensor:
        """A pass on the bare module that moves neither running statistics nor the global generator.

        seed: of the masks that the model draws in it; None draws those that the next pass will draw again.
        """
        return self.recorded_pass(inputs, seed)[0]

    def recorded_pass(self, inputs: Any, seed: int | None = None) -> tuple[Tensor, dict[str, Feature]]:
        """An extra pass and the features that the taps recorded in it."""
        random = RandomState.now(self.device)
        outer = self.features
        try:
            if seed is not None:
                RandomState.of_seed(seed, self.device).restore()
            with self.passing.during(False), frozen_statistics(self.model), self.taps.recording() as self.features:
                return self.output(self.model, inputs), self.features
        finally:
            self.features = outer
            random.restore()

    @property
    def device(self) -> torch.device:
        # The model is searched for a parameter once: a step that asks does not pay for it.
        parameter = next(self.model.parameters(), None) if self._first is None else self._first
        return torch.device("cpu") if parameter is None else parameter.device

    # Perturbation of weights inside one backward ----------------------------------------------------------------------

    def perturb(self, leaves: Sequence[Tensor], offsets: Sequence[Tensor]) -> None:
        leaves = list(leaves)
        if self.sharded:
            offsets = [part_of(offset, leaf) for offset, leaf in zip(offsets, leaves, strict=True)]
        with torch.no_grad():
            self._perturbed.append((leaves, [leaf.clone() for leaf in leaves]))
            torch._foreach_add_(leaves, list(offsets))

    @property
    def perturbed(self) -> bool:
        return bool(self._perturbed)

    def restore(self) -> None:
        """Put perturbed weights back, exactly; does nothing where none are perturbed."""
        while self._perturbed:
            copy_into(*self._perturbed.pop())

    @contextmanager
    def during(self, moment: str) -> Iterator[None]:
        outer, self.moment = self.moment, moment
        try:
            yield
        finally:
            self.moment = outer
