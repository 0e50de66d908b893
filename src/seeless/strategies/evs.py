"""EVS: efficient video sampling, keep what has changed since the frame before."""

from typing import ClassVar

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import EntryStrategy, Positions

FIRST_FRAME = 3.0


@register("evs")
class EVS(EntryStrategy):
    """Keep the first frame of a video, and of the later ones the tokens that changed most since the frame before.

    score = 1 - cos(x[t, p], x[t - 1, p]) for the token at place p of frame t > 0, from the embeddings that enter the
    language model; tokens of the first frame score 3, above every change. The highest scores of the whole video stay:
    as many as the budget says (a share is floored), but never fewer than one frame has. Bagrov et al., "Efficient Video
    Sampling", arXiv 2510.14624, which measures the change as the L1 distance of pixels and cuts at a quantile; cosine
    of embeddings and an exact count are what serving engines (vLLM, SGLang) do, and what is done here, from their
    documentation. "EVS preserves positional identity": positions are kept.

    Still images are left alone, whatever the budget: nothing in them repeats in time. So are tokens whose frames cannot
    be told apart any more, because some are gone or stand for no patch.
    """

    paper = "arXiv 2510.14624"
    own_positions: ClassVar[Positions] = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope != "image":
            raise BudgetError(f"evs compares the frames of a video; scope={self.scope!r} knows none, use 'image'")

    def score(self, ctx: Context) -> torch.Tensor:
        units, visual = ctx.index.shape
        frames = 1 if ctx.grid is None else ctx.grid[0]
        x = ctx.embeds.float().view(units, frames, visual // frames, -1)
        change = 1 - F.cosine_similarity(x[:, 1:], x[:, :-1], dim=-1)
        first = torch.full_like(x[:, :1, :, 0], FIRST_FRAME)
        return torch.cat([first, change], 1).flatten(1)

    def select(self, ctx: Context) -> Keep:
        if ctx.grid is None or ctx.grid[0] == 1:
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool))
        scores = torch.nan_to_num(self.score(ctx))
        frame = ctx.grid[1] * ctx.grid[2]
        if self.threshold is None or isinstance(self.keep, int):
            return Keep(top_mask(scores, max(frame, ctx.n_keep)), scores)
        return Keep((scores > self.threshold) | top_mask(scores, frame), scores)
