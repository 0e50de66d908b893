"""PruneVid: what stands still in a window of frames is merged over time, all is clustered, and the question chooses."""

from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.budget import Budget
from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.peaks import peak_clusters
from seeless.ops.topk import ranks_within, top_mask
from seeless.ops.windows import joined_runs, lengths, of_stretch, sums
from seeless.registry import register
from seeless.strategy import Past
from seeless.two_stage import TwoStageStrategy

NEIGHBOURS = 7
FEW = 14  # tokens that are left as they are


@register("prunevid")
class PruneVid(TwoStageStrategy):
    """Merge what stands still in a window of frames, cluster what is left, and keep what the question looks at.

    Formula: frames are clustered by density peaks of their means, floor(`windows` F) clusters of F frames, and runs of
    a cluster are windows (`ops.windows.joined_runs`). A place is static in a window if the mean cosine of its tokens,
    two by two, is above `similarity`: then it is one token, their mean; in a window of one frame nothing is. Of more
    than 14 static tokens of a window, and of more than 14 others of a frame, density peaks make floor(`clusters` n)
    clusters of the n, each the mean of its tokens, at the place of its centre. Before layer `layer`, with score = max
    over heads and text tokens after the image of their attention to a token in the layer before, floor(`later` n) of
    the n static tokens of every window stay, and of the n others of every frame.
    Signal: the embeddings that enter the language model, and attention of the text in decoder layer `layer - 1`.
    Paper: "PruneVid: Visual Token Pruning for Efficient Video Large Language Models", ACL 2025 Findings, arXiv
    2412.16117.
    Original: https://github.com/Visual-AI/PruneVid, CC BY-NC-SA 4.0; not opened: this is written from a description.

    How many tokens stay follows from the video; there is no budget, and `keep=1.0` keeps all. A static token stands in
    the first frame of its window. A still image is a video of one frame. Tokens that show no patch stay unless
    `newlines` is False. Positions are contiguous at the entry and kept at the second stage (M-RoPE: kept); there the
    caches of earlier layers are cut, too.

    Deviations: equal densities go to the lower place, where the released code adds noise. Tokens keep the order of the
    video, where the released code has a window's static tokens first, and clusters as they were found. A video of which
    no group is large enough to keep a token keeps the best one. A video of few frames is one window.

    Args:
        keep: None, or 1.0 for all tokens.
        layer: of the second stage; by default at 11 / 32 of the depth.
        windows: clusters of frames, as a share of their number; floored, at least one.
        similarity: mean cosine above which a place stands still.
        clusters: of static tokens of a window, and of others of a frame, as a share of their number.
        later: share of every group that the second stage keeps; the released script's.
    """

    keep: Budget | None = None  # type: ignore[assignment]
    windows: float = 0.25
    similarity: float = 0.8
    clusters: float = 0.5
    later: float = 0.4
    newlines: bool = field(default=True, kw_only=True)
    past: Past = field(default="trim", kw_only=True)
    paper = "arXiv 2412.16117"
    own_count = True
    one_by_one = True
    patches_only = True
    tower = ()
    depth_share = (11, 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and not (isinstance(self.keep, float) and self.keep == 1):
            raise BudgetError(
                f"keep={self.keep} is not possible: how many tokens prunevid keeps follows from the video, clusters= "
                "and later=; leave keep out, or give 1.0 to keep all"
            )
        for name in ("windows", "clusters", "later"):
            if not 0 < getattr(self, name) <= 1:
                raise BudgetError(f"{name}={getattr(self, name)} is no share; give a number above 0, at most 1")

    def reduce(self, ctx: Context) -> Decision:
        return self._asked_for(ctx) if ctx.stage_index == 1 else self._merge(ctx)

    def _merge(self, ctx: Context) -> Merge:
        frames, size = ctx.whole_frames()
        units, visual = ctx.index.shape
        x = ctx.embeds.to(torch.promote_types(ctx.embeds.dtype, torch.float32)).view(units, frames, size, -1)
        number = torch.arange(frames, device=x.device)
        many = torch.full((units,), max(1, int(frames * self.windows)), device=x.device)
        everything = torch.ones(units, frames, dtype=torch.bool, device=x.device)
        first = joined_runs(peak_clusters(x.mean(2), everything, many, NEIGHBOURS)[1])
        long, leads = lengths(first)[..., None], (first == number)[..., None]
        together = sums(F.normalize(x, dim=-1), first).square().sum(-1)
        alike = (together - long) / (long * (long - 1)).clamp(min=1) > self.similarity
        static = of_stretch(alike, first) & (long > 1)

        # Sets of tokens: the static ones of the window that begins with each frame, and the others of each frame.
        over_time = sums(torch.where(static[..., None], x, 0), first) / long[..., None]
        present = torch.cat([static & leads, ~static], 1).flatten(0, 1)
        there = present.sum(1)
        count = torch.where(there > FEW, (there.double() * self.clusters).floor().clamp(min=1).long(), there)
        centre, nearest = peak_clusters(torch.cat([over_time, x], 1).flatten(0, 1), present, count, NEIGHBOURS)
        members = torch.zeros_like(nearest).scatter_add(1, nearest, present.long()).gather(1, nearest)
        (of_windows, of_frames), (in_window, in_frame) = (
            found.view(units, 2, frames, size).unbind(1) for found in (nearest, members)
        )
        slot = torch.where(
            static, first[..., None] * size + of_stretch(of_windows, first), number[:, None] * size + of_frames
        )
        weight = 1 / torch.where(static, of_stretch(in_window, first) * long, in_frame).to(x.dtype)
        group = torch.where(static, first[..., None], (number + frames)[:, None]).flatten(1)
        places = ctx.index.to(x.device)  # of a still some may have left before
        ctx.memory["group"] = group.new_zeros(units, ctx.n_original).scatter(1, places, group)
        own = torch.arange(visual, device=x.device).expand(units, -1)
        stays = centre.view(units, 2, frames, size).any(1).flatten(1)
        known = (visual if visual <= FEW else max(1, int(visual * self.clusters))) if frames == 1 else None
        return Merge(stays, own, slot.flatten(1), weight.flatten(1), count=known)

    def _asked_for(self, ctx: Context) -> Keep:
        scores = ctx.attention("text").amax((1, 2))
        group = ctx.memory["group"].to(scores.device).gather(1, ctx.index.to(scores.device))
        there = torch.zeros(len(group), 2 * ctx.n_original, dtype=torch.long, device=group.device)
        there = there.scatter_add(1, group, torch.ones_like(group)).gather(1, group)
        stays = ranks_within(scores, group) < (there.double() * self.later).floor()
        return Keep(stays | (top_mask(scores, 1) & ~stays.any(1, keepdim=True)), scores)
