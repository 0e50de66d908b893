"""PriorTR: attention of the question, corrected by what the model looks at without one."""

from dataclasses import field
from typing import Literal

import torch

from seeless.context import Context, Queries
from seeless.ops.prior import prior_corrected
from seeless.registry import register
from seeless.strategy import LayerStrategy, Past


@register("priortr")
class PriorTR(LayerStrategy):
    """Keep the tokens that the instruction looks at more than a null token does.

    Formula: score = P ln((P + e) / (Q + e)), e = 1e-10; P is the attention of the instruction, Q that of the null token
    right after the image, both of layer `layer - 1`, reduced over heads and normalised over the visual tokens.
    Signal: attention of the instruction and of the null token in the decoder.
    Paper: "Accelerating Multimodal Large Language Models with Prior-Corrected Token Reduction", ECCV 2026, arXiv
    2606.24156; its text was not at hand, so no section can be named.
    Original: CodeChildCZJ/PriorTR, Apache-2.0.

    A share is floored. Tokens keep their positions; the caches of earlier layers are trimmed.

    Deviations: the released ports differ in the rows of the question; the defaults are those of the port to LLaVA-1.5.
    Scores stay in float32, the ports cast them to the model's precision. A share is of the original tokens at every
    stage, there of the tokens that are left.

    Args:
        layer: K of the paper.
        query_aggregation: P is the mean over all rows after the image ("question"), or the last row ("last").
        head_aggregation: "mean" or "max" over heads.
        last_row: whether the last row belongs to the rows of "question" (true on LLaVA and InternVL in the released
            code, false on Qwen-VL).
    """

    layer: int | list[int] = 3
    query_aggregation: Literal["question", "last"] = "question"
    head_aggregation: Literal["mean", "max"] = "mean"
    last_row: bool = True
    past: Past = field(default="trim", kw_only=True)
    paper = "arXiv 2606.24156"
    tower = ()

    def score(self, ctx: Context) -> torch.Tensor:
        prior = ctx.attention(queries="anchor")[:, :, 0]
        posterior = ctx.attention(self._queries(ctx), average=True)[:, :, 0]
        return prior_corrected(posterior, prior, self.head_aggregation)

    def _queries(self, ctx: Context) -> Queries:
        if self.query_aggregation == "last":
            return "last"
        rows = ctx.text.shape[1]
        return "text" if self.last_row or rows < 2 else torch.arange(-rows, -1)
