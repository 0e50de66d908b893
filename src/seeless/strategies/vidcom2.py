"""VidCom2: frames that stand out keep more tokens, and within a frame the tokens that do."""

import math
from numbers import Real

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import EntryStrategy


@register("vidcom2")
class VidCom2(EntryStrategy):
    """Give each frame a budget by how little it resembles the video, and keep its least typical tokens.

    score = -cos(x, g_v) - cos(x, g_t) for a token x of frame t, g_v the mean of all tokens of the video and g_t that of
    the frame. A frame's uniqueness u_t is the mean of -cos(x, g_v) over its tokens, sigma = softmax(u / temperature)
    over the T frames, and its share of tokens is R (1 + sigma_t - 1 / T), R the share kept of the video. Liu et al.,
    "Video Compression Commander", EMNLP 2025, arXiv 2505.14454, section 3.3; x are the embeddings that enter the
    language model. Written from summaries of the paper: the means, the negative cosines (its equations 3 and 7) and the
    budgets by a softmax over frames (equation 5) are in them; the plain sum of the two terms, the form of the share and
    the default temperature are as commonly quoted, unchecked. The released code is said to compare by Gaussian kernels
    on some channels instead of cosines; it was not used.

    The rounding is ours. Exactly the budget (a share is floored) stays of a video: every frame gets the whole part of
    its share, the largest remainders one more token each, and what a frame has no room for goes to the others. Equal
    remainders and equal scores go to the earlier token. A frame may be left without a token. A still image, and tokens
    whose frames cannot be told apart any more, count as one frame: there g_v = g_t.

    Args:
        temperature: of the softmax over frames, > 0; the smaller, the more the unique frames keep.
    """

    temperature: float = 0.01
    paper = "arXiv 2505.14454"

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.temperature
        if isinstance(value, bool) or not isinstance(value, Real) or not (math.isfinite(value) and value > 0):
            raise BudgetError(f"temperature={value!r} is not possible; give a number above 0 such as 0.01")
        if self.threshold is not None:
            raise BudgetError("vidcom2 gives every frame a budget, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        units, visual = ctx.index.shape
        frames = 1 if ctx.grid is None else ctx.grid[0]
        x = ctx.embeds.float().view(units, frames, visual // frames, -1)
        of_video = -F.cosine_similarity(x, x.mean((1, 2), keepdim=True), dim=-1)
        of_frame = -F.cosine_similarity(x, x.mean(2, keepdim=True), dim=-1)
        scores = torch.nan_to_num(of_video + of_frame)
        sigma = (torch.nan_to_num(of_video).mean(2) / self.temperature).softmax(1)
        wanted = ctx.n_keep * (1 + sigma - 1 / frames) / frames
        # The j-th best token of a frame is worth wanted - j: the highest are the whole parts, then the remainders.
        rank = scores.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
        return Keep(top_mask((wanted[..., None] - rank).flatten(1), ctx.n_keep), scores.flatten(1))
