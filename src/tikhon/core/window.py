"""The window between two optimizer steps: what waits for the step to happen, and what is forgotten if it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tikhon.core.errors import Diverged
from tikhon.core.memory import Staged
from tikhon.core.method import Method
from tikhon.core.run import Run
from tikhon.core.shards import part_of, whole
from tikhon.core.strength import resolve
from tikhon.core.terms import Slope, Term

Penalties = Callable[[], dict[str, Term]]
Weighted = list[tuple[float, Tensor]]
Mark = tuple[int, list[int]]


class Window:
    """Staged memories, the gradient of the penalties, and whether the last step was skipped."""

    def __init__(self, memories: Sequence[Staged], run: Run) -> None:
        self._memories = list(memories)
        self._run = run
        self._penalties: Weighted | None = None
        self._slopes: list[tuple[float, Slope]] = []  # of the penalties, and by what to multiply them
        self.penalty_values: dict[str, Tensor] = {}
        self._batch: Mark = (0, [0] * len(self._memories))
        self._leaves: tuple[Tensor, ...] = ()
        self._watched: Tensor | None = None
        self._resumed = False
        self._version: int | None = None
        self._hook: RemovableHandle | None = None
        self._broken: Tensor | None = None

    # Skipped steps ---------------------------------------------------------------------------------------------------

    def watch(self, leaves: Sequence[Tensor]) -> None:
        """Watch the gradient of one of these leaves: the first that gets any.

        A gradient scaler that skips a step calls no hook of the optimizer. But between the micro-batches of one step
        nobody touches gradients: if this one was dropped or zeroed since backward, the step was tried and skipped.
        With several processes gradients are also written by their reduction, so there it counts only if it was dropped,
        as `zero_grad` does by default.
        """
        self._let_go()
        self._leaves, self._watched, self._version = tuple(leaves), None, None

    def follow(self, loss: Tensor) -> None:
        """Look at the watched gradient when the backward pass of this loss has ended."""
        says_so = self._hook is not None and self._watched is not None and self._watched.requires_grad
        if self._leaves and not says_so and loss.requires_grad:
            loss.register_hook(self._queue)

    def _queue(self, gradient: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(self._ended)

    def _ended(self) -> None:
        if self._watched is None or self._watched.grad is None:
            self._watched = next((leaf for leaf in self._leaves if leaf.grad is not None), None)
        if self._watched is None:
            self._version = None
            return
        self._accumulated(self._watched)
        if self._run.world == 1:  # from now on this leaf says so itself, which costs a step less
            self._let_go()
            self._hook = self._watched.register_post_accumulate_grad_hook(self._accumulated)

    def _accumulated(self, leaf: Tensor) -> None:
        self._version = None if leaf.grad is None else leaf.grad._version

    def _let_go(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def begin(self) -> bool:
        """A new micro-batch. Says whether what waited was forgotten, because its step was skipped."""
        forgotten = False
        if self._resumed:
            # A window that was saved half-way goes on only with its gradients; without them its step was skipped.
            self._resumed = False
            if self._leaves and all(leaf.grad is None for leaf in self._leaves):
                self.forget()
                forgotten = True
        if self._run.clock.micro and self._version is None:
            self._let_go()  # the watched leaf had no gradient this time: another one may have
        elif self._run.clock.micro and self._watched is not None:
            gradient = self._watched.grad
            if gradient is None or (self._run.world == 1 and gradient._version != self._version):
                self.forget()
                forgotten = True
        self._batch = self.mark()
        return forgotten

    def resume(self) -> None:
        """A saved window was loaded."""
        self._forget_penalty()
        self._resumed = True
        self._broken = None  # what was lost is not in this state

    def mark(self) -> Mark:
        return self._run.clock.micro, list(map(attrgetter("staged"), self._memories))

    def rewind(self, mark: Mark) -> None:
        """Back to an earlier micro-batch of this window."""
        self._run.clock.micro = mark[0]
        self._run.skipped.rewind(mark[0])
        for memory, writes in zip(self._memories, mark[1], strict=True):
            memory.rewind(writes)
        self._forget_penalty()

    def _forget_penalty(self) -> None:
        self._penalties, self._slopes, self._version = None, [], None

    def forget(self) -> None:
        """Nothing of this window happened: a step that was tried was skipped."""
        if self._run.clock.micro:
            self._run.skipped.steps += 1
        self.rewind((0, [0] * len(self._memories)))

    def forget_batch(self) -> None:
        """The micro-batch in hand failed."""
        for memory, writes in zip(self._memories, self._batch[1], strict=True):
            memory.rewind(writes)
        self._run.skipped.rewind(self._batch[0])
        if self._batch[0] == 0:
            self._forget_penalty()  # it may be what failed

    # Penalties on parameters -----------------------------------------------------------------------------------------

    def penalties(self, compute: Penalties, methods: Sequence[Method]) -> Weighted:
        """The values of these methods' penalties. Their gradient is found once a window and added before the step."""
        if self._penalties is None:
            run = self._run
            with run.whole(methods, moving=False):
                terms = compute()
                strengths = [resolve(term.strength, run.clock) for term in terms.values()]
                self.penalty_values = {name: whole(term.value.detach()) for name, term in terms.items()}
                slopes, graphs = [], []
                for strength, term in zip(strengths, terms.values(), strict=True):
                    # The leaves of shards may be wholes here, which do not last: there slopes go through a graph too.
                    if term.slope is None or run.sharded:
                        graphs.append(strength * term.with_graph())
                    else:
                        slopes.append((strength, term.slope))
                if graphs:
                    chosen = run.select("all")
                    found = torch.autograd.grad(reduce(add, graphs), [one.leaf for one in chosen], allow_unused=True)
            if graphs:
                pairs = [(one.leaf, slope) for one, slope in zip(chosen, found, strict=True) if slope is not None]
                parts = [part_of(slope, leaf) if run.sharded else slope for leaf, slope in pairs]
                slopes.append((1.0, Slope([leaf for leaf, _ in pairs], lambda _: parts)))
            self._slopes = slopes
            self._penalties = [*zip(strengths, self.penalty_values.values(), strict=True)]
        return self._penalties

    def add_penalty_gradients(self) -> None:
        """Slopes in closed form are taken here, of the same weights still: what is at hand needs no room to wait in."""
        if self._slopes:
            self._add_slopes()

    @torch.no_grad()
    def _add_slopes(self) -> None:
        for strength, slope in self._slopes:
            gradients, values = [], []
            for leaf, value in zip(slope.leaves, slope(), strict=True):
                if leaf.grad is None:
                    leaf.grad = strength * value  # a tensor of its own: it may be the leaf itself
                else:
                    gradients.append(leaf.grad)
                    values.append(value)
            if gradients:
                torch._foreach_add_(gradients, values, alpha=strength)
        self._slopes = []

    # The step happened -----------------------------------------------------------------------------------------------

    def commit(self) -> None:
        gather = _gather if self._run.world > 1 else None
        for memory in self._memories:
            memory.commit(gather)
        self._run.skipped.commit()
        self._forget_penalty()

    # Losses that are not finite, on accelerators ---------------------------------------------------------------------

    def note(self, loss: Tensor) -> None:
        broken = ~loss.detach().isfinite()
        self._broken = broken if self._broken is None else self._broken | broken

    def refuse_noted(self) -> None:
        if self._broken is not None and bool(self._broken):
            self._broken = None
            raise Diverged(
                f"The loss was NaN or infinite at some step of epoch {self._run.clock.epoch}. Check the inputs for "
                "NaN, or lower the learning rate; on the CPU the step and the term are named."
            )


def _gather(values: Tensor) -> Tensor:
    """Rows of every rank, in the order of the ranks; ranks may hold different numbers of rows."""
    count = torch.tensor([len(values)], device=values.device)
    counts: list[Any] = [torch.zeros_like(count) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(counts, count)
    longest = max(int(one) for one in counts)
    padded = torch.zeros(longest, *values.shape[1:], dtype=values.dtype, device=values.device)
    padded[: len(values)] = values
    everyone = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(everyone, padded)
    return torch.cat([rows[: int(one)] for rows, one in zip(everyone, counts, strict=True)])
