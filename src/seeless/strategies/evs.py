"""EVS: efficient video sampling, keep what has changed since the frame before."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.frames import frame_before
from seeless.ops.ties import ranking
from seeless.registry import register
from seeless.strategy import EntryStrategy, Positions

STAYS = 3.0
NEW = 2.0


@register("evs")
class EVS(EntryStrategy):
    """Keep the first frame of a video, and of the later ones the tokens that changed most since the frame before.

    Formula: score = 1 - cos(x[t, p], x[t - 1, p]) for the token at place p of frame t > 0. Tokens of the first frame
    score 3, above every change, and so do tokens that show no patch (Video-LLaVA's class tokens, LLaVA-OneVision's
    newline). The highest scores of the whole video stay: as many as the budget says (a share is floored), but never
    fewer than score 3.
    Signal: the embeddings x that enter the language model, of two frames in a row.
    Paper: Bagrov et al., "Efficient Video Sampling", arXiv 2510.14624; no section is named, its text was not at hand.
    Original: no code of the authors is known here; written from the documentation of vLLM and SGLang, both Apache-2.0.

    "EVS preserves positional identity": positions are kept. Where an earlier stage took the token at p of frame t - 1,
    there is nothing to compare with: the score is 2, the greatest change. Still images, and videos of a single frame,
    are left alone whatever the budget: nothing in them repeats in time, so all their tokens score 3.

    Deviations: the paper measures the change as the L1 distance of pixels and cuts at a quantile; cosine of embeddings
    and an exact count are what serving engines (vLLM, SGLang) do, and what is done here.
    """

    paper = "arXiv 2510.14624"
    own_positions: ClassVar[Positions] = "keep"
    tower = ()
    adaptive = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope != "image":
            raise BudgetError(f"evs compares the frames of a video; scope={self.scope!r} knows none, use 'image'")

    def promised(self, count: int, frame: Sequence[int], patch: Sequence[int]) -> int | None:
        if self.by_threshold(0):
            return None
        first = min(frame)
        return max(count, sum(own == first or place < 0 for own, place in zip(frame, patch, strict=True)))

    def score(self, ctx: Context) -> torch.Tensor:
        x = ctx.embeds.to(torch.promote_types(ctx.embeds.dtype, torch.float32))
        frame, patch = ctx.frame.to(x.device), ctx.patch.to(x.device)
        before = frame_before(frame, patch, *(ctx.frames or ()))
        earlier = x.gather(1, before.clamp(min=0)[..., None].expand_as(x))
        change = torch.nan_to_num(1 - F.cosine_similarity(x, earlier, dim=-1))
        stays = (frame == frame.amin(1, keepdim=True)) | (patch < 0)
        return change.masked_fill(before < 0, NEW).masked_fill(stays, STAYS)

    def select(self, ctx: Context) -> Keep:
        scores = self.score(ctx)
        stays = scores == STAYS
        if self.threshold is not None and not isinstance(self.keep, int):
            return Keep((scores > self.threshold) | stays, scores)
        rank = ranking(scores, size=1).argsort(dim=1)
        return Keep(rank < stays.sum(1, keepdim=True).clamp(min=ctx.n_keep), scores)
