"""What a run found, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import seeless as sl
from seeless.cli.console import print_table
from seeless.cli.timing import Times


@dataclass(frozen=True)
class Result:
    """One strategy on one question; the untouched model has neither strategy nor report."""

    strategy: sl.Strategy | None
    answer: str
    report: sl.Report | None
    times: Times | None

    @property
    def name(self) -> str:
        """The strategy's name; `none` for the untouched model."""
        return "none" if self.strategy is None else self.strategy.name


def result_dict(result: Result, first: sl.Report, right_answer: str | None) -> dict[str, Any]:
    """One result as JSON.

    Args:
        first: any report of this question: it has the numbers of the untouched model, too.
    """
    report = result.report
    return {
        "strategy": result.name,
        "fields": None if result.strategy is None else result.strategy.to_dict(),
        "answer": result.answer,
        "right": None if right_answer is None else result.answer == right_answer,
        "visual_tokens": first.n_before[0] if report is None else report.n_after[0],
        "average_tokens": float(first.n_before[0]) if report is None else report.average_tokens,
        "flops": (first.flops_before if report is None else report.flops_after).to_dict(),
        "kv_bytes": first.kv_bytes_before if report is None else report.kv_bytes_after,
        "prefill_seconds": None if result.times is None else result.times.prefill,
        "decode_seconds": None if result.times is None else result.times.decode,
        "report": None if report is None else report.to_dict(),
    }


def print_results(rows: Sequence[dict[str, Any]]) -> None:
    """A table with one line per result, from their dictionaries."""
    columns = ["strategy", "answer", "tokens kept", "tokens/layer", "GFLOPs", "KV cache", "prefill", "decode step"]
    print_table(columns, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    mark = {True: " (right)", False: " (wrong)", None: ""}[row["right"]]
    return [
        row["strategy"],
        (row["answer"] or "(nothing)") + mark,
        str(row["visual_tokens"]),
        f"{row['average_tokens']:.0f}",
        f"{row['flops']['total'] / 1e9:.3g}",
        f"{row['kv_bytes'] / 2**20:.3g} MiB",
        *("-" if row[key] is None else f"{1000 * row[key]:.1f} ms" for key in ("prefill_seconds", "decode_seconds")),
    ]
