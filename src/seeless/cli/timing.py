"""Wall-clock times of prefill and decode steps."""

import contextlib
import itertools
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import seeless as sl
from seeless.strategy import Recipe

DECODE_STEPS = 8


@dataclass(frozen=True)
class Times:
    """Seconds until the first token is there (`prefill`), and per token after it (`decode`)."""

    prefill: float
    decode: float


def measure(model: Any, inputs: Any, strategies: list[sl.Strategy | Recipe | None], repeats: int) -> list[Times]:
    """Median times of `generate` with each of the strategies (None: the untouched model).

    The strategies take turns, so that a machine that slows down slows all of them; the first turn is not counted.
    """
    samples: list[list[Times]] = [[] for _ in strategies]
    for turn in range(repeats + 1):
        for strategy, own in zip(strategies, samples, strict=True):
            with contextlib.nullcontext() if strategy is None else sl.apply(model, strategy):
                sample = _time_once(model, inputs)
            if turn > 0:
                own.append(sample)
    return [Times(median(s.prefill for s in own), median(s.decode for s in own)) for own in samples]


def _time_once(model: Any, inputs: Any) -> Times:
    import torch
    from transformers import StoppingCriteriaList

    ticks: list[float] = []

    def tick(ids: torch.Tensor, *_: Any) -> torch.Tensor:
        if ids.is_cuda:
            torch.cuda.synchronize()
        ticks.append(time.perf_counter())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    tick(inputs["input_ids"])
    length = DECODE_STEPS + 1
    model.generate(
        **inputs,
        min_new_tokens=length,
        max_new_tokens=length,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([tick]),
    )
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    return Times(steps[0], median(steps[1:]))
