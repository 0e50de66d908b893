"""What strategies cost and save on one model: times, memory and what arithmetic promises, as rows."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from math import isfinite
from statistics import median, quantiles
from typing import Any

import torch

import seeless as sl
from seeless.bench.clock import PARTS, Clock, Times, split_prefill, time_answer
from seeless.bench.memory import peak_bytes
from seeless.bench.prompts import Workload, make_inputs
from seeless.errors import one_line
from seeless.eval.sweep import Planned

SCHEMA = 2  # of a row
Row = dict[str, Any]


def measure(
    model: Any,
    processor: Any,
    workload: Workload,
    runs: Sequence[Planned],
    rounds: int,
    step: Callable[[str], None] = lambda label: None,
    *,
    processor_time: bool = False,
    cache: str = "dynamic",
) -> list[Row]:
    """One row per run, the untouched model's first.

    Every round times all runs once, in rotating order, so that drift of the machine hits them alike; a ratio is the
    median over rounds of untouched / run within the round. A first round warms up and is not counted.

    Args:
        processor: an image processor.
        runs: the untouched model among them.
        step: told the label of what is timed next.
        processor_time: in place of the clock's (`Clock`).
        cache: of answers, "dynamic" or "static".

    Raises:
        InputError: no run could be timed.
    """
    inputs, clock = make_inputs(model, processor, workload), Clock(model.device, processor_time)
    rows: dict[str, Row] = {run.label: _row(run, workload) for run in runs}
    possible = []
    for run in runs:
        if run.refused:
            continue
        try:
            rows[run.label] |= _counted(model, inputs, run)
            possible.append(run)
        except sl.SeelessError as error:
            rows[run.label]["refused"] = one_line(error)
    times: dict[str, list[Times]] = {run.label: [] for run in possible}
    parts: dict[str, list[dict[str, float]]] = {run.label: [] for run in possible}
    for number in range(rounds + 1):
        turn = number % len(possible)
        for run in [*possible[turn:], *possible[:turn]]:
            step(run.label)
            with _applied(model, run):
                answer = time_answer(model, inputs, workload.answer, clock, cache)
            with _applied(model, run) as handle:
                acting = [] if handle is None else [part for own in handle.strategies for part in own.parts()]
                split = split_prefill(model, inputs, acting, clock)
            if number:
                times[run.label].append(answer)
                parts[run.label].append(split)
    untouched = next(run.label for run in possible if run.strategy is None)
    for label, own in times.items():
        rows[label] |= _timed(own, parts[label], times[untouched], parts[untouched], rows[label]["flops"], workload)
    return list(rows.values())


def _applied(model: Any, run: Planned) -> Any:
    return nullcontext() if run.strategy is None else sl.apply(model, run.strategy)


def _row(run: Planned, workload: Workload) -> Row:
    row = {"schema": SCHEMA, "strategy": run.name, "keep": run.keep, "seed": run.seed, "fields": run.fields}
    return {**row, "workload": asdict(workload), **({"refused": run.refused} if run.refused else {})}


@torch.no_grad()
def _counted(model: Any, inputs: dict, run: Planned) -> Row:
    """What a run costs by arithmetic, and the memory it takes."""
    whole = run.strategy is None
    with sl.apply(model, sl.Uniform(keep=1.0) if whole else run.strategy) as handle:  # type: ignore[arg-type]
        model(**inputs, use_cache=True, logits_to_keep=1)
    report = handle.report
    before = report.flops_before.to_dict()
    after = before if whole else report.flops_after.to_dict()
    with _applied(model, run):
        peak = peak_bytes(model.device, lambda: model(**inputs, use_cache=True, logits_to_keep=1))
    return {
        "tokens": {
            "prompt": inputs["input_ids"].shape[1],
            "visual": report.n_before[0],
            "kept": report.n_after[0],
            "average": report.average_tokens,
            "layers": [row[0] for row in report.visual],
        },
        "flops": {"before": before, "after": after},
        "kv_bytes": {"before": report.kv_bytes_before, "after": report.kv_bytes_after},
        "peak_bytes": peak,
    }


def _timed(
    times: list[Times],
    parts: list[dict[str, float]],
    whole: list[Times],
    whole_parts: list[dict[str, float]],
    flops: dict[str, dict[str, int]],
    workload: Workload,
) -> Row:
    def ratio(above: list[float], below: list[float]) -> float:
        return median(a / b for a, b in zip(above, below, strict=True))

    def decoder(split: dict[str, float]) -> float:
        return split["decoder"] + split["selection"]

    faster = {
        "first": ratio([t.first for t in whole], [t.first for t in times]),
        "decoder": ratio([decoder(p) for p in whole_parts], [decoder(p) for p in parts]),
    }
    later = [t.later for t in times]
    if isfinite(later[0]):
        faster["later"] = ratio([t.later for t in whole], later)
    promised = {
        "first": flops["before"]["total"] / flops["after"]["total"],
        "decoder": flops["before"]["decoder"] / flops["after"]["decoder"],
    }
    first, after = median(t.first for t in times), median(later) if isfinite(later[0]) else 0.0
    return {
        "seconds": {
            "first": _spread([t.first for t in times]),
            "later": _spread(later) if isfinite(later[0]) else None,
            "parts": {part: _spread([split[part] for split in parts]) for part in (*PARTS, "rest")},
        },
        "requests_per_second": workload.batch / (first + (workload.answer - 1) * after),
        "speed_up": faster,
        "flops_speed_up": promised,
        "efficiency": {part: faster[part] / promised[part] for part in promised},
        "rounds": len(times),
    }


def _spread(values: list[float]) -> dict[str, float]:
    """The median, and the quartiles as `low` and `high`."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high}
