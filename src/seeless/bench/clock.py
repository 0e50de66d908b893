"""Seconds of what a model does: to the first token, for each after it, and where they went."""

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from seeless import models

PARTS = ("tower", "projector", "selection", "decoder")


@dataclass(frozen=True)
class Times:
    """Seconds until the first token is there (`first`), and per token after it (`later`; nan if there is none)."""

    first: float
    later: float


def time_answer(model: Any, inputs: Any, tokens: int) -> Times:
    """Time `generate` with an answer of exactly so many tokens."""
    from transformers import StoppingCriteriaList

    ticks: list[float] = []

    def tick(ids: torch.Tensor, *_: Any) -> torch.Tensor:
        ticks.append(now(ids.device))
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    tick(inputs["input_ids"])
    criteria = StoppingCriteriaList([tick])
    model.generate(**inputs, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False, stopping_criteria=criteria)
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    return Times(steps[0], median(steps[1:]) if tokens > 1 else float("nan"))


def now(device: torch.device) -> float:
    """The time when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass
class Split:
    """Seconds of one prefill by part, what runs inside another part not counted there; `rest` is none of `PARTS`."""

    device: torch.device
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
        ends = now(self.device)
        if self._open:
            self.seconds[self._open[-1]] += ends - self._since
        self._since = ends


@torch.no_grad()
def split_prefill(model: Any, inputs: Any, strategies: list[Any]) -> dict[str, float]:
    """Seconds of one prefill by part. `selection` is what strategies decide; moving tokens is the decoder's.

    Args:
        strategies: those in force on the model, whose decisions are to be told apart.
    """
    split = Split(next(model.parameters()).device)

    def around(call: Any, part: str) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with split.within(part):
                return call(*args, **kwargs)

        return timed

    with ExitStack() as undo:
        for part, modules in models.parts(model).items():
            for module in modules:
                had = vars(module).get("forward")
                undo.callback(_put_back, module, had)
                vars(module)["forward"] = around(module.forward, part)
        for strategy in strategies:
            object.__setattr__(strategy, "reduce", around(strategy.reduce, "selection"))  # on this one object
            undo.callback(object.__delattr__, strategy, "reduce")
        with split.within("rest"):
            model(**inputs, use_cache=True, logits_to_keep=1)
    return split.seconds


def _put_back(module: Any, had: Any) -> None:
    if had is None:
        del vars(module)["forward"]
    else:
        vars(module)["forward"] = had
