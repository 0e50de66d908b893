"""Candidates timed on this machine, as `seeless bench --quick` times them."""

from collections.abc import Callable, Sequence
from typing import Any

from seeless.advice.candidates import Candidate
from seeless.bench.loading import Loaded
from seeless.bench.measure import measure
from seeless.bench.prompts import Workload
from seeless.eval.sweep import NONE, Planned

Row = dict[str, Any]


def timed(
    loaded: Loaded,
    workload: Workload,
    candidates: Sequence[Candidate],
    rounds: int,
    step: Callable[[str], None] = lambda label: None,
) -> tuple[Row, dict[str, Row]]:
    """The row of the untouched model, and by method that of each candidate (`seeless.bench.measure`)."""
    runs = [Planned(NONE, 1.0), *map(planned, candidates)]
    whole, *rows = measure(loaded.model, loaded.image_processor, workload, runs, rounds, step)
    return whole, {one.name: row for one, row in zip(candidates, rows, strict=True)}


def planned(one: Candidate) -> Planned:
    """A candidate as a run; a method that finds its own count has no budget to be called by, all it could keep is 1."""
    return Planned(one.name, next(iter(one.fields.values()), 1.0), None, one.strategy)
