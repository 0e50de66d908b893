"""VidCom2: frames that stand out keep more tokens, and within a frame the tokens that do."""

import math

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.frames import frame_slots, padded_frames
from seeless.ops.ties import ranking
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import EntryStrategy


@register("vidcom2")
class VidCom2(EntryStrategy):
    """Give each frame a budget by how little it resembles the video, and keep its least typical tokens.

    Formula: score = -cos(x, g_v) - cos(x, g_t) for a token x of frame t, g_v the mean of all tokens of the video and
    g_t that of the frame. A frame's uniqueness u_t is the mean of -cos(x, g_v) over its tokens, sigma = softmax(u /
    temperature) over the T frames, and its share of tokens is R (1 + sigma_t - 1 / T), R the share kept of the video.
    Signal: the embeddings x that enter the language model, of all frames.
    Paper: Liu et al., "Video Compression Commander", EMNLP 2025, arXiv 2505.14454, section 3.3, equations 3 to 6,
    section 3.4, equations 7 to 10, and the algorithm of appendix E.
    Original: xuyang-liu16/VidCom2, no licence found; not used.

    Frames may have unequal numbers of tokens: a class token belongs to its frame, a newline that closes the video to
    the first, and an earlier stage may have taken some. Shares are then scaled so that they add up to the budget. A
    frame may be left without a token. A still image is one frame: there g_v = g_t.

    Deviations: written from summaries of the paper: the means, the negative cosines (its equations 3 and 7) and the
    budgets by a softmax over frames (equation 5) are in them; the plain sum of the two terms, the form of the share and
    the default temperature are as commonly quoted, unchecked. The released code is said to compare by Gaussian kernels
    on some channels instead of cosines. The rounding is ours: exactly the budget (a share is floored) stays of a video,
    every frame gets the whole part of its share, the largest remainders one more token each, and what a frame has no
    room for goes to the others. Equal remainders and equal scores go to the earlier token.

    Args:
        temperature: of the softmax over frames, > 0; the smaller, the more the unique frames keep.
    """

    temperature: float = 0.01
    paper = "arXiv 2505.14454"
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < math.inf:
            raise BudgetError(f"temperature={self.temperature!r} is not possible; give a number above 0 such as 0.01")
        if self.threshold is not None:
            raise BudgetError("vidcom2 gives every frame a budget, so it takes no threshold")
        if self.scope == "row":
            raise BudgetError("vidcom2 compares the frames of one video; scope='row' joins several, use 'image'")

    def select(self, ctx: Context) -> Keep:
        x = ctx.embeds.to(torch.promote_types(ctx.embeds.dtype, torch.float32))
        frame = ctx.frame.to(x.device).clamp(min=0)  # a still is one frame
        frames, largest = ctx.frames or (None, None)
        slot, sizes = frame_slots(frame, frames, largest)
        at_least_one = sizes.clamp(min=1)
        g_frame = padded_frames(x, slot, sizes, largest=largest).sum(2) / at_least_one[..., None]
        g_frame = g_frame.gather(1, frame[..., None].expand_as(x))
        of_video = torch.nan_to_num(-F.cosine_similarity(x, x.mean(1, keepdim=True), dim=-1))
        scores = torch.nan_to_num(of_video - F.cosine_similarity(x, g_frame, dim=-1))
        unique = padded_frames(of_video, slot, sizes, largest=largest).sum(2) / at_least_one
        sigma = (unique / self.temperature).masked_fill(sizes == 0, -torch.inf).softmax(1)
        share = sizes * (1 + sigma - 1 / (sizes > 0).sum(1, keepdim=True))
        wanted = ctx.n_keep * share / share.sum(1, keepdim=True)
        # The j-th best token of a frame is worth wanted - j: the highest are the whole parts, then the remainders.
        rank = ranking(padded_frames(scores, slot, sizes, -torch.inf, largest), size=1).argsort(dim=2)
        worth = wanted.gather(1, frame) - rank.flatten(1).gather(1, slot)
        return Keep(top_mask(worth, ctx.n_keep), scores, ctx.n_keep)
