"""Wall-clock times of prefill and decode steps."""

import contextlib
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
    from seeless.bench.clock import Clock, time_answer

    samples: list[list[Times]] = [[] for _ in strategies]
    for turn in range(repeats + 1):
        for strategy, own in zip(strategies, samples, strict=True):
            with contextlib.nullcontext() if strategy is None else sl.apply(model, strategy):
                sample = time_answer(model, inputs, DECODE_STEPS + 1, Clock(model.device))
            if turn > 0:
                own.append(Times(sample.first, sample.later))
    return [Times(median(s.prefill for s in own), median(s.decode for s in own)) for own in samples]
