"""The tables of the embedded model `reader`, from the rows of its sweep."""

import json
from pathlib import Path

from seeless.eval.points import NONE, points
from seeless.eval.rows import read_rows
from seeless.reader import KINDS

ROOT = Path(__file__).parents[1]
READER_SWEEP, TRAINING = ROOT / "results" / "sweep-reader.jsonl", ROOT / "training" / "log" / "reader.jsonl"
DRAWINGS = "seeless_drawings"


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


def reader_table() -> str:
    """Accuracy of the embedded model of the papers' shape at the papers' budgets, per method, with intervals."""
    rows = reader_rows()
    found = {(point.strategy, point.keep): point for point in points(rows)}
    full = found[NONE, 1.0]
    row = next(row for row in rows if row["strategy"] == NONE)
    scores = row["scores"][DRAWINGS]
    kinds = ", ".join(f"{kind} {100 * scores[kind]['value']:.0f}" for kind in KINDS)
    budgets = sorted({row["keep"] for row in rows if row["strategy"] != NONE}, reverse=True)
    lines = ["| method | " + " | ".join(f"{b} of 576" for b in budgets) + " |", "|---|" + "---|" * len(budgets)]
    reasons: list[str] = []
    for name in dict.fromkeys(row["strategy"] for row in rows if row["strategy"] != NONE):
        cells = []
        for budget in budgets:
            if (point := found.get((name, budget))) is not None:
                cells.append(f"{100 * point.value:.0f} ({100 * point.low:.0f}–{100 * point.high:.0f})")
                continue
            told = {r["refused"] for r in rows if (r["strategy"], r["keep"]) == (name, budget) and "refused" in r}
            reasons += [reason for reason in told if reason not in reasons]
            cells.append(f"[{reasons.index(told.pop()) + 1}]" if told else "–")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    head = (
        f"Right answers in % to {scores['accuracy']['n']} held-out questions, with 95 % intervals. The untouched model "
        f"has {100 * full.value:.1f} ({100 * full.low:.1f}–{100 * full.high:.1f}); by kind of question: {kinds}."
    )
    made = (
        f"Made by `{row['command']}` at commit {row['commit'][:12]}; every run is a line of results/sweep-reader.jsonl."
        " Methods that draw: means over their seeds; –: not run yet."
    )
    notes = [f"[{number}] {reason}  " for number, reason in enumerate(reasons, 1)]
    return "\n".join([head, "", *lines, "", *notes, *([""] if notes else []), made])
