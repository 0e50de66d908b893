"""Seconds of what a model does: to the first token, for each after it, and where they went."""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from statistics import median
from typing import Any

import torch

import seeless as sl
from seeless import models

PARTS = ("tower", "projector", "selection", "decoder")


@dataclass(frozen=True)
class Times:
    """Seconds until the first token is there (`first`), and per token after it (`later`; nan if there is none)."""

    first: float
    later: float


@dataclass(frozen=True)
class Clock:
    """Tells the time when a device has done what it was given.

    Args:
        processor: the time of this process on the processor, all threads together, which other processes of a busy
            machine change less than what passes by the wall. Of no use where a GPU computes.
    """

    device: torch.device
    processor: bool = False

    def now(self) -> float:
        """Seconds since some moment."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.processor else time.perf_counter()


def time_answer(model: Any, inputs: Any, tokens: int, clock: Clock, cache: str = "dynamic") -> Times:
    """Time `generate` with an answer of exactly so many tokens.

    Args:
        cache: "static" has room for all of them from the beginning; on a GPU `generate` then compiles its steps.
    """
    from transformers import StoppingCriteriaList

    ticks: list[float] = []

    def tick(ids: torch.Tensor, *_: Any) -> torch.Tensor:
        ticks.append(clock.now())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    tick(inputs["input_ids"])
    options: dict[str, Any] = {} if cache == "dynamic" else {"cache_implementation": cache}
    options |= {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False}
    model.generate(**inputs, **options, stopping_criteria=StoppingCriteriaList([tick]))
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    return Times(steps[0], median(steps[1:]) if tokens > 1 else float("nan"))


@dataclass
class Split:
    """Seconds of one prefill by part, what runs inside another part not counted there; `rest` is none of `PARTS`."""

    clock: Clock
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*PARTS, "rest"), 0.0))
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Count what passes in this block for `part`."""
        self._turn()
        self._open.append(part)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        ends = self.clock.now()
        if self._open:
            self.seconds[self._open[-1]] += ends - self._since
        self._since = ends


@torch.no_grad()
def split_prefill(model: Any, inputs: Any, strategies: list[Any], clock: Clock) -> dict[str, float]:
    """Seconds of one prefill by part. `selection` is what strategies decide, in the tower, too; moving tokens is not.

    Args:
        strategies: those in force on the model, whose decisions are to be told apart.
    """
    split = Split(clock)

    def around(call: Any, part: str) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with split.within(part):
                return call(*args, **kwargs)

        return timed

    with ExitStack() as undo:
        parts = models.parts(model)
        for module in parts.pop("decoder"):  # around all that a handle does ahead of its forward
            undo.callback(_put_back, module, vars(module).get("forward"))
            vars(module)["forward"] = around(module.forward, "decoder")
        for part, modules in parts.items():  # in the class: layers of towers that somebody watches are not left out
            for kind in {type(module) for module in modules}:
                undo.callback(_put_back, kind, vars(kind).get("forward"))
                kind.forward = _timed(kind.forward, split, part, {id(module) for module in modules})
        for strategy in strategies:
            name = "merge" if isinstance(strategy, sl.TowerStrategy) else "reduce"
            object.__setattr__(strategy, name, around(getattr(strategy, name), "selection"))  # on this one object
            undo.callback(object.__delattr__, strategy, name)
        with split.within("rest"):
            model(**inputs, use_cache=True, logits_to_keep=1)
    return split.seconds


def _timed(forward: Any, split: Split, part: str, own: set[int]) -> Any:
    """A class's `forward` that counts what passes in some of its modules for `part`."""

    @wraps(forward)
    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if id(self) not in own:
            return forward(self, *args, **kwargs)
        with split.within(part):
            return forward(self, *args, **kwargs)

    return timed


def _put_back(owner: Any, had: Any) -> None:
    if had is None:
        del owner.forward
    else:
        owner.forward = had
