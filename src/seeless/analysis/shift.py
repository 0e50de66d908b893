"""Attention shift: does text look at later visual tokens more than at earlier ones, whatever they show?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from seeless.analysis.gathering import Gathered, Measured
from seeless.analysis.study import Seen, Study, as_json, facts_of, percent, rows_of

KINDS = ("full", "image", "text", "last")


class AttentionShift(Study):
    """Mean attention to each visual token, by its place, in every decoder layer and in the vision tower.

    Formula: of a layer, with A the mean of its attention over heads, rows q and visual tokens j, `full_j` is the sum of
    A[q, j] over all rows from the first visual token on, divided by how many of them may see j; `image_j` the same over
    rows of visual tokens, `text_j` over rows behind them but the last, `last_j` = A[last, j]. `tower_j` is the class
    token's row in the layer that made the features. Plain means over pictures.
    Paper: Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning", arXiv 2412.01818v1,
    section 3.1.

    Deviations: `text_j` is divided by the rows that were summed up, the released script by one more. Rows that may see
    a token are counted by the model's own mask, which on a causal decoder with one block of visual tokens is the
    released script's count.
    """

    name: ClassVar[str] = "shift"
    all_rows: ClassVar[bool] = True

    def measure(self, seen: Seen, layers: Sequence[int]) -> Measured:
        reading = seen.reading
        means = {f"shift/{kind}": rows_of(reading, kind, layers) for kind in KINDS}
        if reading.tower is not None:
            means["shift/tower"] = reading.tower
        return Measured(means=means, facts={**facts_of(reading), "shift layers": list(layers)})

    def numbers(self, gathered: Gathered) -> dict[str, Any]:
        """Per kind, layer by layer, the means themselves and how they lean.

        `last_quarter` is the share of the last quarter of the visual tokens, 0.25 where attention is even; `rising` is
        the rank correlation of attention with place (Spearman), 1 where every token gets more than the one before.
        """
        told: dict[str, Any] = {"layers": gathered.facts["shift layers"]}
        for kind in KINDS:
            mean = gathered.mean(f"shift/{kind}")
            told[kind] = {
                "last_quarter": as_json(np.array([last_quarter(row) for row in mean])),
                "rising": as_json(np.array([rising(row) for row in mean])),
                "attention": as_json(mean),
            }
        told["tower"] = None
        if "shift/tower" in gathered.sums:
            mean = gathered.mean("shift/tower")
            lean = as_json(np.array([last_quarter(mean), rising(mean)]))
            told["tower"] = {"last_quarter": lean[0], "rising": lean[1], "attention": as_json(mean)}
        return told

    def table(self, numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        heads = [
            "attention to the last quarter of the visual tokens, of",
            "full rows",
            "image rows",
            "text rows",
            "last",
        ]
        rows = [
            [f"decoder layer {layer}", *(percent(numbers[kind]["last_quarter"][at]) for kind in KINDS)]
            for at, layer in enumerate(numbers["layers"])
        ]
        tower = numbers["tower"]
        rows.append(["vision tower", *[""] * 3, "not read" if tower is None else percent(tower["last_quarter"])])
        return heads, rows

    def draw(self, gathered: Gathered, folder: Path, ending: str) -> list[Path]:
        from seeless.analysis.drawing import draw_shift

        return draw_shift(gathered, folder, ending)


def last_quarter(attention: np.ndarray) -> float:
    """Share of the last quarter of the tokens, those whose middle lies in it; nan where something is missing.

    >>> last_quarter(np.ones(8)), last_quarter(np.array([1.0, 1.0, 1.0, 5.0]))
    (0.25, 0.625)
    """
    later = (np.arange(len(attention)) + 0.5) / len(attention) > 0.75
    return float(attention[later].sum() / attention.sum())


def rising(attention: np.ndarray) -> float:
    """Rank correlation of attention with place (Spearman), equal values sharing their mean rank; nan without any.

    >>> rising(np.array([0.1, 0.2, 0.4])), rising(np.array([0.3, 0.2, 0.1]))
    (1.0, -1.0)
    """
    if np.isnan(attention).any() or len(set(attention.tolist())) < 2:
        return float("nan")
    _, inverse, counts = np.unique(attention, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float(np.round(np.corrcoef(np.arange(len(attention)), rank)[0, 1], 12))
