"""Attention dispersion: is text's attention spread over more visual tokens than the vision tower's?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from seeless.analysis.gathering import Gathered, Measured
from seeless.analysis.study import Seen, Study, as_json, facts_of, percent, rows_of
from seeless.errors import UnsupportedModel

BINS = 200
TOP = 0.2  # of the tokens


class AttentionDispersion(Study):
    """How much of the attention the most attended visual tokens get, and how attention is distributed.

    Formula: of the last token's row in the second decoder layer with attention, and of the class token's row in the
    tower layer that made the features, both mean over heads: sorted descending, divided by its sum, averaged over
    pictures rank by rank, and summed up along the ranks. Histograms hold the values of all pictures, divided by the
    largest of them, in 200 equal bins from the smallest to the largest.
    Paper: Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning", arXiv 2412.01818v1,
    section 3.1.

    Deviations: the histograms' heights are logarithms to base 10, as their labels say; in the released script they are
    natural ones under the same labels.
    """

    name: ClassVar[str] = "dispersion"
    all_rows: ClassVar[bool] = False

    def layers(self, readable: Sequence[int]) -> list[int]:
        if len(readable) < 2:
            raise UnsupportedModel(
                f"attention dispersion looks at the second decoder layer with attention; this model shows "
                f"{len(readable)}"
            )
        return [readable[1]]

    def measure(self, seen: Seen, layers: Sequence[int]) -> Measured:
        reading = seen.reading
        rows = {"last": rows_of(reading, "last", layers)[0]}
        if reading.tower is not None:
            rows["tower"] = reading.tower
        return Measured(
            means={f"dispersion/{kind}": _sorted_shares(row) for kind, row in rows.items()},
            pooled={f"dispersion/{kind}": row for kind, row in rows.items()},
            facts={**facts_of(reading), "dispersion layer": layers[0]},
        )

    def numbers(self, gathered: Gathered) -> dict[str, Any]:
        """Per kind the curve, the share of the top fifth of the tokens (0.2 where all get alike), and the histogram."""
        told: dict[str, Any] = {"layer": gathered.facts["dispersion layer"], "tower": None}
        for kind in kinds(gathered):
            curve = np.cumsum(gathered.mean(f"dispersion/{kind}"))
            edges, share = histogram(gathered.values(f"dispersion/{kind}"))
            told[kind] = {
                "top_fifth": float(curve[round(TOP * len(curve)) - 1]) if len(curve) >= 3 else None,
                "curve": as_json(curve),
                "histogram": {"edges": as_json(edges), "share": as_json(share)},
            }
        return told

    def table(self, numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        whose = {"tower": "vision tower", "last": f"last token, decoder layer {numbers['layer']}"}
        rows = [
            [title, "not read" if numbers[kind] is None else percent(numbers[kind]["top_fifth"])]
            for kind, title in whose.items()
        ]
        return ["attention to the most attended fifth of the visual tokens", ""], rows

    def draw(self, gathered: Gathered, folder: Path, ending: str) -> list[Path]:
        from seeless.analysis.drawing import draw_dispersion

        return draw_dispersion(gathered, folder, ending)


def kinds(gathered: Gathered) -> list[str]:
    """Whose attention there is: that of the "last" token, and the "tower"'s where it is read."""
    return [kind for kind in ("tower", "last") if f"dispersion/{kind}" in gathered.sums]


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges `[201]` of the bins, as shares of the largest value, and the share `[200]` of all values in each."""
    scaled = values.astype(np.float64).ravel() / values.max()
    counts, edges = np.histogram(scaled, BINS)
    return edges, counts / counts.sum()


def _sorted_shares(row: np.ndarray) -> np.ndarray:
    return np.sort(row)[::-1] / row.sum()
