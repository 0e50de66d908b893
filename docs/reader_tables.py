"""The tables of the embedded model `reader`, from the rows of its sweep."""

import json
from pathlib import Path

from markdown_table import table

from seeless.eval.points import NONE, Point, points
from seeless.eval.rows import read_rows
from seeless.reader import KINDS

ROOT = Path(__file__).parents[1]
READER_SWEEP, TRAINING = ROOT / "results" / "sweep-reader.jsonl", ROOT / "training" / "log" / "reader.jsonl"
DRAWINGS = "seeless_drawings"
ALL, IN_PAPERS = 576, 64  # visual tokens of a picture, and the budget of theirs that most papers have


def reader_rows() -> list[dict]:
    """The rows of the sweep; a broken line would leave a hole in the table."""
    rows, broken = read_rows(READER_SWEEP)
    assert not broken, "; ".join(map(str, broken))
    return rows


def reader_accuracy() -> str:
    """What the model answered rightly at the end of its training, by kind of question."""
    last = json.loads(TRAINING.read_text().splitlines()[-1])
    kinds = ", ".join(f"{kind} {100 * last[kind]:.1f}" for kind in sorted(KINDS, key=lambda kind: last[kind]))
    return (
        "At the end of its training the untouched model had 4,800 questions about 400 held-out drawings "
        f"(training/log/reader.jsonl), and answered in % rightly: {kinds}."
    )


def tokens(keep: int | float) -> int:
    """What is kept of a picture; methods of several stages are given shares."""
    return keep if isinstance(keep, int) else round(keep * ALL)


def reader_table() -> str:
    """Accuracy of the embedded model of the papers' shape at the papers' budgets, per method, with intervals."""
    rows = reader_rows()
    found = {(point.strategy, tokens(point.keep)): point for point in points(rows)}
    full = found[NONE, ALL]
    row = next(row for row in rows if row["strategy"] == NONE)
    scores = row["scores"][DRAWINGS]
    kinds = ", ".join(f"{kind} {100 * scores[kind]['value']:.0f}" for kind in KINDS)
    budgets = sorted({tokens(row["keep"]) for row in rows if row["strategy"] != NONE}, reverse=True)
    heads = ["method", *(f"{budget} of {ALL}" for budget in budgets), f"tokens a layer at {IN_PAPERS}"]
    lines = []
    refused: dict[str, list[str]] = {}
    for name in dict.fromkeys(row["strategy"] for row in rows if row["strategy"] != NONE):
        if own := {budget: found[name, budget] for budget in budgets if (name, budget) in found}:
            cells = [told(own[budget]) if budget in own else "–" for budget in budgets]
            average = f"{own[IN_PAPERS].tokens:.0f}" if IN_PAPERS in own else "–"
            lines.append([f"`{name}`", *cells, average])
        else:
            reason = next(row["refused"] for row in rows if row["strategy"] == name)
            refused.setdefault(reason.replace(f"{name}.keep", "keep"), []).append(f"`{name}`")
    head = (
        f"Right answers in % to {scores['accuracy']['n']} held-out questions, with 95 % intervals. The untouched model "
        f"has {100 * full.value:.1f} ({100 * full.low:.1f}–{100 * full.high:.1f}); by kind of question: {kinds}."
    )
    made = (
        f"Made by `{row['command']}` at commit {row['commit'][:12]}; every run is a line of results/sweep-reader.jsonl."
        " Methods that draw: means over their seeds; –: not run yet."
    )
    notes = [f"- {', '.join(names)}: {reason}" for reason, names in refused.items()]
    left_out = ["Left out, and why:", "", *notes, ""] if notes else []
    return "\n".join([head, "", *table(heads, lines), "", *left_out, made])


def told(point: Point) -> str:
    """Accuracy with its interval, in %."""
    return f"{100 * point.value:.0f} ({100 * point.low:.0f}–{100 * point.high:.0f})"
