"""Overlap: how far methods keep the same visual tokens, layer by layer and budget by budget."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from seeless import models
from seeless.analysis.gathering import Gathered, Measured
from seeless.analysis.study import Seen, Study, as_json, percent
from seeless.api import apply
from seeless.errors import InputError
from seeless.report import Report
from seeless.strategy import Strategy


class KeptOverlap(Study):
    """Intersection over union of the tokens two methods keep, in every decoder layer, for some budgets.

    Formula: |A and B| / |A or B|, A and B the places that a layer still has under either method (of merged tokens the
    place that stays); a layer before a method's cut has all of them. Plain means over pictures. `chance` is what two
    choices of as many tokens that know nothing of each other have in common: with a and b of n tokens ab/n on average,
    over a + b - ab/n.

    Args:
        methods: by budget as it is written, and name; the same names for each budget, two or more.

    Raises:
        InputError: there are fewer than two methods.
    """

    name: ClassVar[str] = "overlap"
    all_rows: ClassVar[bool] = False

    def __init__(self, methods: Mapping[str, Mapping[str, Strategy]]) -> None:
        self.methods = methods
        self.names = list(next(iter(methods.values())))
        if len(self.names) < 2:
            raise InputError(f"only {self.names} is named; an overlap is that of two methods or more")
        self.pairs = list(combinations(range(len(self.names)), 2))

    def layers(self, readable: Sequence[int]) -> list[int]:
        return []

    def measure(self, seen: Seen, layers: Sequence[int]) -> Measured:
        depth, means = models.decoder_depth(seen.model), {}
        for budget, reports in reports_of(seen, self.methods).items():
            kept, visual = [kept_by_layer(report, depth) for report in reports], reports[0].n_before[0]
            both = [[_overlap(a, b, visual) for a, b in zip(kept[i], kept[j], strict=True)] for i, j in self.pairs]
            means[f"overlap/{budget}"] = np.array([[own for own, _ in pair] for pair in both])
            means[f"overlap/{budget} chance"] = np.array([[chance for _, chance in pair] for pair in both])
        return Measured(means=means)

    def numbers(self, gathered: Gathered) -> dict[str, Any]:
        """Per budget and pair of methods, layer by layer, the overlap and that of chance."""
        told: dict[str, Any] = {}
        for budget in self.methods:
            own, chance = (gathered.mean(f"overlap/{budget}{what}") for what in ("", " chance"))
            told[budget] = [
                {"methods": self._pair(at), "overlap": as_json(own[at]), "chance": as_json(chance[at])}
                for at in range(len(self.pairs))
            ]
        return told

    def _pair(self, at: int) -> list[str]:
        return [self.names[own] for own in self.pairs[at]]

    def table(self, numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        rows = []
        for budget, pairs in numbers.items():
            for pair in pairs:
                last = [percent(pair[what][-1]) for what in ("overlap", "chance")]
                rows.append([f"{' and '.join(pair['methods'])}, keep {budget}", *last])
        return ["tokens kept by both, of those kept by either, in the last layer", "overlap", "by chance"], rows

    def draw(self, gathered: Gathered, folder: Path, ending: str) -> list[Path]:
        from seeless.analysis.drawing import draw_overlap

        return draw_overlap(self.numbers(gathered), gathered.samples, folder, ending)


def reports_of(seen: Seen, methods: Mapping[str, Mapping[str, Strategy]]) -> dict[str, list[Report]]:
    """What each method keeps of one picture, by budget, in the order of their names."""
    return {budget: [_report(seen, method) for method in own.values()] for budget, own in methods.items()}


def _report(seen: Seen, strategy: Strategy) -> Report:
    with torch.inference_mode(), apply(seen.model, strategy) as handle:
        seen.model(**seen.inputs, use_cache=False)
    return handle.report


def kept_by_layer(report: Report, depth: int, row: int = 0) -> list[set[int]]:
    """Which of a row's original visual tokens each decoder layer sees."""
    kept, found = set(range(report.n_before[row])), []
    for layer in range(depth):
        for stage in report.stages:
            if stage.layer == layer:
                kept = set(stage.kept[row].tolist())
        found.append(kept)
    return found


def _overlap(a: set[int], b: set[int], visual: int) -> tuple[float, float]:
    """Of two sets of a picture's visual tokens, and of as many by chance."""
    common = len(a) * len(b) / visual
    return len(a & b) / len(a | b), common / (len(a) + len(b) - common)
