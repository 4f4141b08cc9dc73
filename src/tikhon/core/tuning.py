"""Tuning: learned strengths move down the hypergradient of the validation loss while the network trains.

In a tuning step each strength follows the derivative of one validation batch's base loss, in eval mode, after one step
of gradient descent on the batch in hand. Momentum, clipping and adaptive scaling are not in it, and of accumulated
micro-batches the first is taken. What is greedy so far undervalues strengths whose effect comes late.

A tuning step costs a forward and backward pass of the validation batch and, where strengths multiply terms of outputs
or features, two forward passes of the training batch without gradient, however many strengths there are; a penalty of
the network's derivative by its inputs, and a network in half precision, cost a backward pass for each strength instead.
The device is waited for once. Other steps cost nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tikhon.core.batches import map_tensors
from tikhon.core.errors import TikhonError
from tikhon.core.hypergradient import Hypergradients, Pass
from tikhon.core.losses import Loss
from tikhon.core.objective import Objective
from tikhon.core.reading import Reading
from tikhon.core.run import Run
from tikhon.core.strength import Learned
from tikhon.core.target import rows_alone
from tikhon.core.validation import Overlap, Validation

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

RATE = 0.1
"""By which the logarithm of a strength moves in a tuning step where its hypergradient keeps its sign."""

PATIENCE = 20
"""For how many tuning steps on end a strength may lie at a bound before that is said."""


def _adam(logs: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam that forgets soon, because hypergradients shrink by orders while training goes on; and without an epsilon
    to speak of, because they may be of any size."""
    return torch.optim.Adam(logs, lr=RATE, betas=(0.9, 0.95), eps=1e-30)


class Tuning:
    """The optimizer of the learned strengths' logarithms, and when it moves them."""

    def __init__(
        self,
        run: Run,
        objective: Objective,
        base: Loss,
        reading: Reading,
        batches: Iterable[Any],
        every: int,
        optimizer: MakeOptimizer | None,
    ) -> None:
        if not run.names:
            raise TikhonError(
                "Nothing is to be tuned: no strength is Learned. Write for example tk.L2(tk.Learned(1e-4, 1e-6, 1e-1))."
            )
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise TikhonError(f"every is a number of optimizer steps, at least 1, not {every!r}.")
        self._run, self._reading, self._every = run, reading, every
        self._validation, self._overlap = Validation(batches, run.seed), Overlap()
        self._hypergradients = Hypergradients(run, objective, base)
        self._logs = {  # on the CPU and in double precision, whatever the network is in
            name: nn.Parameter(torch.tensor(math.log(strength.initial), dtype=torch.float64, device="cpu"))
            for strength, name in run.names.items()
        }
        self._optimizer = (optimizer or _adam)(list(self._logs.values()))
        if not isinstance(self._optimizer, torch.optim.Optimizer):
            raise TikhonError("optimizer= is a function that makes a torch optimizer of a list of parameters.")
        self._at_bound = dict.fromkeys(self._logs, 0)
        self._idle = dict.fromkeys(self._logs, 0)
        self._skipped = 0
        self._staged: dict[str, Tensor] | None = None
        self._found: Tensor | None = None

    # A tuning step ---------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether the micro-batch in hand is the first of a step in which to tune."""
        clock = self._run.clock
        return clock.micro == 0 and self._staged is None and (clock.number + 1) % self._every == 0

    def look(self, seen: Pass, inputs: Any) -> None:
        """Take the hypergradients; they wait for the step to happen. inputs: the batch as the caller gave it."""
        run = self._run
        validation, target, _ = self._reading.read(self._validation.current(), None, None)
        validation = _to(validation, run.device)
        target = rows_alone(validation) if target is None else target.to(run.device)
        self._staged = self._hypergradients(seen, validation, target)
        if run.world > 1:
            # A term may be missing in one process: there its derivative is zero.
            zero = torch.zeros((), device=run.device, dtype=next(run.model.parameters()).dtype)
            mean = torch.stack([self._staged.get(name, zero).to(zero) for name in self._logs])
            torch.distributed.all_reduce(mean)
            self._staged = dict(zip(self._logs, mean / run.world, strict=True))
        self._found = self._overlap.look(_to(inputs, run.device), validation)

    def forget(self) -> None:
        """The step did not happen."""
        self._staged = self._found = None

    def commit(self) -> None:
        """The step happened: the strengths of the next one. Waits for the device once."""
        if self._staged is None:
            return
        waiting = [*self._staged.values()] + ([] if self._found is None else [self._found])
        values: list[float] = torch.stack([one.float() for one in waiting]).tolist() if waiting else []
        if self._found is not None:
            self._overlap.judge(int(values.pop()))
        by_name = dict(zip(self._staged, values, strict=True))
        self.forget()
        self._validation.advance()
        if not all(map(math.isfinite, values)):
            self._skipped += 1
        else:
            self._move(by_name)

    def _move(self, hypergradients: Mapping[str, float]) -> None:
        for name, log in self._logs.items():
            value = hypergradients.get(name)  # of a strength that is not in force there is none
            log.grad = None if value is None else torch.tensor(value, dtype=log.dtype, device=log.device)
        self._optimizer.step()
        for strength, name in self._run.names.items():
            low, high = math.log(strength.low), math.log(strength.high)
            moved = min(max(float(self._logs[name].detach()), low), high)
            self._logs[name].data.fill_(moved)
            now = strength.low if moved == low else strength.high if moved == high else math.exp(moved)
            self._run.clock.learned[strength] = now
            self._note(strength, name, name in hypergradients)

    def _note(self, strength: Learned, name: str, acted: bool) -> None:
        """Say it once where a strength stays at a bound, or has no part in the loss."""
        now = self._run.clock.learned[strength]
        at_bound = strength.low < strength.high and now in (strength.low, strength.high)
        self._at_bound[name] = self._at_bound[name] + 1 if at_bound else 0
        self._idle[name] = 0 if acted else self._idle[name] + 1
        if self._at_bound[name] == PATIENCE:
            warnings.warn(
                f"{name} has been at its bound {now:g} for {PATIENCE} tuning steps: what lowers the validation loss "
                "lies beyond. Widen Learned(initial, low, high), or at the lower bound leave the method out.",
                stacklevel=2,
            )
        if self._idle[name] == PATIENCE:
            warnings.warn(
                f"{name} has had no part in the loss for {PATIENCE} tuning steps, so it is not learned: is its method "
                "at work? Otherwise give a number or a schedule.",
                stacklevel=2,
            )

    # Looking in, saving ----------------------------------------------------------------------------------------------

    def numbers(self) -> dict[str, float]:
        counts = {f"{name}/at_bound": float(count) for name, count in self._at_bound.items() if count}
        return counts | ({"skipped/hypergradients": float(self._skipped)} if self._skipped else {})

    def state(self) -> dict[str, Any]:
        return {
            "strengths": {name: self._run.clock.learned[one] for one, name in self._run.names.items()},
            "logs": {name: log.detach() for name, log in self._logs.items()},
            "optimizer": self._optimizer.state_dict(),
            "validation": [self._validation.round, self._validation.place],
            "at_bound": dict(self._at_bound),
            "idle": dict(self._idle),
            "skipped": self._skipped,
            "staged": None if self._staged is None else dict(self._staged),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        run = self._run
        self._optimizer.load_state_dict(state["optimizer"])
        for strength, name in run.names.items():
            run.clock.learned[strength] = float(state["strengths"][name])
            self._logs[name].data.copy_(state["logs"][name])
        self._validation.load(*state["validation"])
        self._at_bound = {name: int(state["at_bound"][name]) for name in self._logs}
        self._idle = {name: int(state["idle"][name]) for name in self._logs}
        self._skipped = int(state["skipped"])
        staged = state["staged"]
        self._staged = None if staged is None else {name: one.to(run.device) for name, one in staged.items()}
        self._found = None


def _to(batch: Any, device: torch.device) -> Any:
    return map_tensors(lambda values: values.to(device), batch)
