"""FastV: drop what the last token does not look at."""

from typing import Literal

import torch

from seeless.context import Context, Queries
from seeless.registry import register
from seeless.strategy import LayerStrategy


@register("fastv")
class FastV(LayerStrategy):
    """Keep the tokens the last prompt token attends to most in the layer before the cut.

    Formula: score_j = mean over heads of A[last, j], A the softmax attention of layer `layer - 1`.
    Signal: attention of the last prompt token in the decoder.
    Paper: Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024, arXiv 2403.06764, section 4.1 (K =
    `layer`, R = 1 - `keep`).
    Original: pkunlp-icler/FastV, no licence found.

    A share is rounded half to even. Tokens keep their positions, earlier layers their full cache.

    Deviations: the ranking is frozen at prefill. Without a KV cache it is made anew at every step, as in the paper's
    own evaluation.

    Args:
        layer: K of the paper.
        query_aggregation: the "last" token's attention, as in the paper, or the mean over all rows after the image
            ("question"), as PriorTR's ports have it.
    """

    layer: int | list[int] = 2
    query_aggregation: Literal["last", "question"] = "last"
    paper = "arXiv 2403.06764"
    rounding = round
    tower = ()

    def score(self, ctx: Context) -> torch.Tensor:
        queries: Queries = "last" if self.query_aggregation == "last" else "text"
        return ctx.attention(queries, average=True).mean((1, 2))
