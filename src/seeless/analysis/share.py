"""Share of attention: how much of what text attends to are visual tokens, layer by layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from seeless.analysis.gathering import Gathered, Measured
from seeless.analysis.study import Seen, Study, as_json, facts_of, percent


class AttentionShare(Study):
    """How much of the attention of text goes to visual tokens, in every decoder layer.

    Formula: the sum over visual tokens j of A[q, j], A the mean of a layer's attention over heads: of the prompt's last
    row, and the mean over the rows behind the visual tokens but the last. Plain means over pictures.
    Paper: Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024, arXiv 2403.06764, section 3, whose
    question this is ("attention allocation"); there answers ask, here prompts do.
    """

    name: ClassVar[str] = "share"
    all_rows: ClassVar[bool] = True

    def measure(self, seen: Seen, layers: Sequence[int]) -> Measured:
        reading = seen.reading
        at = [reading.layers.index(layer) for layer in layers]
        assert reading.text_share is not None
        means = {"share/last": reading.last[at].sum(1), "share/text": reading.text_share[at]}
        return Measured(means=means, facts={**facts_of(reading), "share layers": list(layers)})

    def numbers(self, gathered: Gathered) -> dict[str, Any]:
        """Per layer, of the last row and of the other rows of text."""
        shares = {kind: as_json(gathered.mean(f"share/{kind}")) for kind in ("last", "text")}
        return {"layers": gathered.facts["share layers"], **shares}

    def table(self, numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        rows = [
            [f"decoder layer {layer}", percent(numbers["text"][at]), percent(numbers["last"][at])]
            for at, layer in enumerate(numbers["layers"])
        ]
        return ["attention to visual tokens, of", "text rows", "last"], rows

    def draw(self, gathered: Gathered, folder: Path, ending: str) -> list[Path]:
        from seeless.analysis.drawing import draw_share

        return draw_share(gathered, folder, ending)
