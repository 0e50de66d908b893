"""What a strategy did on a question: the answer, the numbers, and the time, as values and as text."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import seeless as sl
from seeless.asking.timing import Times
from seeless.named.knobs import default_of
from seeless.strategy import Recipe
from seeless.vtr import VTRConfig

COLUMNS = ["strategy", "answer", "tokens kept", "tokens/layer", "GFLOPs", "KV cache", "prefill", "decode step"]


@dataclass(frozen=True)
class Result:
    """One strategy on one question, by the `name` it was asked for; the untouched model, `none`, has neither strategy
    nor report."""

    name: str
    strategy: sl.Strategy | Recipe | None
    answer: str
    report: sl.Report | None
    times: Times | None

    @property
    def settings(self) -> dict[str, Any] | None:
        """The strategy's fields as plain values."""
        return self.strategy.to_dict() if isinstance(self.strategy, sl.Strategy | VTRConfig) else None

    @property
    def headline(self) -> str:
        """The strategy with its fields; of a guest's configuration only those that were set."""
        if not isinstance(self.strategy, VTRConfig):
            return str(self.strategy)
        given = self.strategy.to_dict()
        changed = [f"{k.name}={given[k.name]!r}" for k in fields(self.strategy) if given[k.name] != default_of(k)]
        return f"{type(self.strategy).__name__}({', '.join(changed)})"


def result_dict(result: Result, first: sl.Report, right_answer: str | None) -> dict[str, Any]:
    """One result as JSON.

    Args:
        first: any report of this question: it has the numbers of the untouched model, too.
    """
    report = result.report
    return {
        "strategy": result.name,
        "fields": result.settings,
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


def what_is_faster(rows: Sequence[dict[str, Any]]) -> str:
    """How many times as fast prefills are that are faster than the untouched one, by the table's times; "" for none.

    Args:
        rows: of the untouched model and of strategies, with times.
    """
    whole, *others = rows
    ratios = {row["strategy"]: whole["prefill_seconds"] / row["prefill_seconds"] for row in others}
    faster = [f"{name} x{ratio:.2f}" for name, ratio in ratios.items() if ratio > 1]
    return f"prefill faster here: {', '.join(faster)}" if faster else ""


def what_is_not_faster(rows: Sequence[dict[str, Any]]) -> str:
    """Which prefills took as long as the untouched one or longer, and how to see what other sizes save; "" for none.

    Args:
        rows: of the untouched model and of strategies, with times.
    """
    whole, *others = rows
    slow = [row["strategy"] for row in others if row["prefill_seconds"] >= whole["prefill_seconds"]]
    if not slow:
        return ""
    return (
        f"not faster here: {', '.join(slow)}; with {whole['visual_tokens']} visual tokens on a model of this size a "
        "prefill is mostly what layers cost whatever they read, and choosing comes on top. What a larger model saves "
        "on this machine: seeless bench --arch llava-1.5-7b --scale 1/8"
    )


def cells(row: dict[str, Any]) -> list[str]:
    """A result's dictionary as text, under `COLUMNS`."""
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
