"""HoliTom: what stands still over a window of frames is kept once, of the rest what the tower looks at."""

import math
from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.peaks import peak_clusters
from seeless.ops.ties import first_of_best
from seeless.ops.topk import ranks_within, top_mask
from seeless.ops.windows import lengths, of_stretch, static_windows, sums
from seeless.registry import register
from seeless.two_stage import TwoStageStrategy

LONGEST = 1024  # frames of a window
NEIGHBOURS = 7


@register("holitom")
class HoliTom(TwoStageStrategy):
    """Keep once what repeats over a window of frames, of the rest what the tower looks at, and fold more in later.

    Formula: a window of frames a to b saves (b - a) tokens at every place whose cosine to the next frame is above
    `similarity` from a to b - 1, and the windows are those that save the most in all (`ops.windows.static_windows`).
    These places are static: one token each, the mean over the window; all others are dynamic. A video of F frames of n
    tokens keeps r = min(keep F n / (F n - saved), 1) of both: of the n_s static tokens of a window round(n_s r) centres
    by density peaks, each `beta` times itself and 1 - beta times the mean of the static tokens nearest to it, and of
    the n_d dynamic ones of a frame the ceil(n_d r) with the highest score = a. Before layer `layer` the round(N later)
    of N tokens stay that the last token attends to most in the layer before, and every other one is averaged,
    (kept + other) / 2, into the one it resembles most, one after the other: of m the i-th weighs 2^-(m - i + 1).
    Signal: the embeddings x that enter the language model; a, the vision tower's attention
    (`Context.vision_attention`); attention of the last prompt token in decoder layer `layer - 1`.
    Paper: "HoliTom: Holistic Token Merging for Fast Video Large Language Models", NeurIPS 2025, arXiv 2505.21334.
    Original: https://github.com/cokeshao/HoliTom, Apache-2.0.

    How many tokens stay follows from the video: about `keep` at the entry. A static token stands in the first frame of
    its window, at its place. A still image is a video of one frame, all dynamic. Tokens that show no patch stay unless
    `newlines` is False. Positions are contiguous at the entry and kept at the second stage (M-RoPE: kept).

    Published settings: LLaVA-OneVision-7B and LLaVA-Video-7B as by default, similarity=0.65 at keep=0.1.

    Deviations: on towers with a class token a is its row, not what a patch receives. Equal densities go to the lower
    place, where the released code adds noise. A centre that no other token is near stays as it is. Static tokens are in
    order with the dynamic ones of their first frame, as released for LLaVA-Video; for LLaVA-OneVision they come before
    these. A video of which nothing would stay keeps one token. The budget is that of each video alone; in a batch the
    released code multiplies it on. Its share of dynamic tokens chosen by density, 0 unless set, is left out.

    Args:
        keep: share of the tokens of a video that enter the decoder, or their number, which stands for that share.
        layer: of the second stage; by default at 18 / 28 of the depth.
        similarity: cosine above which a place stands still from one frame to the next.
        beta: weight of a static centre beside the mean of the tokens near it, in [0, 1].
        later: share of what is left that the second stage keeps; 1.0 leaves all.
    """

    similarity: float = 0.8
    beta: float = 0.6
    later: float = 0.5
    newlines: bool = field(default=True, kw_only=True)
    paper = "arXiv 2505.21334"
    tower = ("attention",)
    depth_share = (18, 28)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise BudgetError(f"beta={self.beta} is no weight; give a number from 0 to 1")
        if not 0 < self.later <= 1:
            raise BudgetError(f"later={self.later} is no share; give a number above 0, at most 1")

    def reduce(self, ctx: Context) -> Decision:
        return self._fold(ctx) if ctx.stage_index == 1 else self._merge(ctx)

    def _merge(self, ctx: Context) -> Decision:
        frames, size = ctx.whole_frames()
        units, visual = ctx.index.shape
        scores = ctx.vision_attention().mean(1).to(ctx.embeds.device)
        if frames == 1:
            count = math.ceil(visual * (self.share(visual) * visual / visual))
            return Keep(top_mask(scores, count), scores, count)
        x = ctx.embeds.to(torch.promote_types(ctx.embeds.dtype, torch.float32)).view(units, frames, size, -1)
        above = F.cosine_similarity(x[:, :-1], x[:, 1:], dim=-1) > self.similarity
        first, saved = static_windows(above, LONGEST)
        leads = (first == torch.arange(frames, device=x.device))[..., None]
        moves = torch.ones(units, frames, size, dtype=torch.bool, device=x.device)
        moves[:, :-1] = ~above & (first[:, 1:] == first[:, :-1])[..., None]
        moves[:, -1] = False
        long = lengths(first)[..., None]
        static = of_stretch(sums(moves.to(x.dtype), first) == 0, first) & (long > 1)

        share = (self.share(visual) * visual / (visual - saved).double()).clamp(max=1)[:, None]
        dynamic_count = ((~static).sum(2) * share).ceil().long()
        static_count = ((static & leads).sum(2) * share).round().long()
        nothing = (dynamic_count.sum(1) + static_count.sum(1)) == 0
        static_count[:, 0] += nothing  # then all is static, and the first window begins with the first frame
        group = torch.where(static, frames, torch.arange(frames, device=x.device)[:, None]).flatten(1)
        rank = ranks_within(scores, group).view_as(static)
        dynamic = ~static & (rank < dynamic_count[..., None])

        mean = (sums(torch.where(static[..., None], x, 0), first) / long[..., None]).flatten(0, 1)
        wanted = static_count.flatten()
        centre, nearest = peak_clusters(mean, (static & leads).flatten(0, 1), wanted, wanted.clamp(1, NEIGHBOURS))
        own = torch.arange(visual, device=x.device).expand(units, -1)
        begin = first[..., None] * size
        lead = (begin + own.view_as(static) % size).flatten(1)  # the same place in the window's first frame
        near = (begin + of_stretch(nearest.view_as(static), first)).flatten(1)
        centre = centre.view(units, visual)
        slot = torch.where(static.flatten(1), near, own)
        chosen = static.flatten(1) & centre.gather(1, slot)
        itself = chosen & (slot == lead)
        once = chosen & ~itself & leads.expand_as(static).flatten(1)
        others = torch.zeros_like(scores).scatter_add(1, slot, once.to(scores)).gather(1, slot)
        of_centre = torch.where(itself, torch.where(others > 0, self.beta, 1.0), (1 - self.beta) / others.clamp(min=1))
        weight = torch.where(chosen, of_centre / long.expand_as(static).flatten(1), dynamic.flatten(1).to(scores))
        return Merge(centre | dynamic.flatten(1), own, slot, weight, scores)

    def _fold(self, ctx: Context) -> Decision:
        units, visual = ctx.index.shape
        scores = ctx.attention("last").mean((1, 2))
        count = max(1, round(visual * self.later))
        kept = top_mask(scores, count)
        if count == visual:
            return Keep(kept, scores, count)
        x = F.normalize(ctx.visual.to(torch.promote_types(ctx.visual.dtype, torch.float32)), dim=-1)
        own = torch.arange(visual, device=x.device).expand(units, -1)
        most = first_of_best((x @ x.transpose(1, 2)).masked_fill(~kept[:, None], -torch.inf))[..., 0]
        slot = torch.where(kept, own, most)
        folded = torch.zeros_like(own).scatter_add(1, slot, (~kept).long()).gather(1, slot)
        number = ranks_within(-own.to(x), torch.where(kept, visual, slot))  # among those of its slot, from 0
        return Merge(kept, own, slot, 0.5 ** torch.where(kept, folded, folded - number).to(x), scores, count=count)
