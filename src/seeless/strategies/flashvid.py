"""FlashVID: of every frame the diverse tokens stay, and trees over time and clusters in space stand for the rest."""

import math
from dataclasses import field, replace
from typing import Literal

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.farthest import weighted_farthest
from seeless.ops.peaks import peak_clusters
from seeless.ops.topk import top_mask
from seeless.ops.trees import time_trees
from seeless.ops.windows import lengths, of_stretch, segments, sums
from seeless.registry import register
from seeless.two_stage import TwoStageStrategy


@register("flashvid")
class FlashVID(TwoStageStrategy):
    """Keep diverse important tokens of every frame, merge the others along time and in space, and cut once more.

    Formula: the video is cut into segments where the means of two frames have a cosine below `segment_similarity`, and
    at the lowest cosines until there are `segments`. Of the n tokens of a frame b = ceil(n keep expansion) are to stay,
    ceil(b diverse) of them chosen one after another: score_j = min over chosen i of (1 - cos(x_i, x_j)) a_j, at first
    the second smallest of (1 - cos(x_i, x_j)) a_j over all i. A token of the others whose cosine to the most similar
    one of the frame before, in its segment, is above `similarity` joins that one, the most similar pairs first and no
    more than leave b tokens a frame; a tree so grown is its mean. The n_f trees of a frame that are left are put into
    ceil(n_f r) clusters by density peaks, r the share of them that fits the segment's budget; a cluster is the mean of
    its trees and stands at its centre. Before layer `layer` the ceil(N later) of N tokens stay that the last token
    attends to most in the layer before.
    Signal: the embeddings x that enter the language model; a, the vision tower's attention
    (`Context.vision_attention`); attention of the last prompt token in decoder layer `layer - 1`.
    Paper: "FlashVID: Efficient Video Large Language Models via Training-free Tree-based Spatiotemporal Token Merging",
    ICLR 2026, arXiv 2602.08024.
    Original: https://github.com/Fanziyang-v/FlashVID, MIT.

    `keep` is meant as the average over the decoder's layers: with the defaults, 1.25 (20 + 8 * 0.3) / 28 = 1. Ceilings
    make it a little more. A still image is a video of one frame. Tokens that show no patch stay unless `newlines` is
    False. Positions are contiguous at the entry and kept at the second stage (M-RoPE: kept).

    Published settings: LLaVA-OneVision and LLaVA-Video 7B as by default; Qwen2.5-VL-7B version="v1", segments=4;
    Qwen3-VL-8B the same with layer=28, later=0.1.

    Deviations: on towers with a class token a is its row, not what a patch receives. A tree is the mean of all its
    tokens; the released sums of a chain weigh too much, see `as_released`. No token is chosen twice, and a segment of
    one frame does not cluster what was chosen. Equal densities and cosines go to the lower place, where the released
    code adds noise and lets more pairs stay apart. Tokens keep the order of the video.

    Args:
        keep: share of the tokens of a video, or their number, which stands for that share of every frame.
        layer: of the second stage; by default at 20 / 28 of the depth.
        version: "v2" multiplies a_j by the mean over the segment's frames c of <x_j, mean of c>, "v1" does not.
        expansion: of the budget at the entry, for what the second stage drops.
        diverse: share of a frame's budget that is chosen, the rest being trees.
        similarity: cosine above which a token joins one of the frame before.
        segment_similarity: cosine of two frames below which a segment ends.
        segments: how many there are at least.
        later: share of what is left that the second stage keeps.
        as_released: divide the sum of a tree by one more than the first token's own children, as the released code
            does, whatever came with these.
    """

    version: Literal["v1", "v2"] = "v2"
    expansion: float = 1.25
    diverse: float = 0.7
    similarity: float = 0.8
    segment_similarity: float = 0.9
    segments: int = 8
    later: float = 0.3
    as_released: bool = False
    newlines: bool = field(default=True, kw_only=True)
    paper = "arXiv 2602.08024"
    tower = ("attention",)
    depth_share = (20, 28)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("diverse", "later"):
            if not 0 < getattr(self, name) <= 1:
                raise BudgetError(f"{name}={getattr(self, name)} is no share; give a number above 0, at most 1")
        if not 0 < self.expansion < math.inf:
            raise BudgetError(f"expansion={self.expansion} is not possible; give a number above 0 such as 1.25")
        if self.segments < 1:
            raise BudgetError(f"segments={self.segments} is not possible; a video has at least one")

    def reduce(self, ctx: Context) -> Decision:
        if ctx.stage_index == 1:
            scores = ctx.attention("last").mean((1, 2))
            count = math.ceil(ctx.index.shape[1] * self.later)
            return Keep(top_mask(scores, count), scores, count)
        frames, size = ctx.whole_frames()
        units, visual = ctx.index.shape
        budget = min(size, math.ceil(size * self.share(visual) * self.expansion))
        importance = ctx.vision_attention().mean(1).to(ctx.embeds.device)
        if budget == size:
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool), importance, visual)
        x = ctx.embeds.to(torch.promote_types(ctx.embeds.dtype, torch.float32)).view(units, frames, size, -1)
        means = x.mean(2)
        likeness = F.cosine_similarity(means[:, :-1], means[:, 1:], dim=-1)
        first = segments(likeness, self.segment_similarity, self.segments)
        chosen = math.ceil(budget * self.diverse)
        diverse = self._diverse(x, importance.view(units, frames, size), chosen, means, first)
        root, children = time_trees(x, diverse, first, self.similarity, budget)
        tokens = torch.zeros_like(root).scatter_add(1, root, torch.ones_like(root))
        weight = 1 / (1 + children if self.as_released else tokens).gather(1, root).to(x.dtype)
        merge = self._clusters(x, diverse, first, budget - chosen, root, weight, importance)
        return replace(merge, count=budget) if frames == 1 else merge

    def _diverse(
        self, x: torch.Tensor, importance: torch.Tensor, count: int, means: torch.Tensor, first: torch.Tensor
    ) -> torch.Tensor:
        """Which tokens of every frame are chosen one after another, `[units, frames, size]` bool."""
        factor = importance.to(x.dtype)
        if self.version == "v2":
            of_segment = of_stretch(sums(means, first) / lengths(first)[..., None], first)
            factor = factor * (x * of_segment[:, :, None]).sum(-1)
        chosen = weighted_farthest(x.flatten(0, 1), factor.flatten(0, 1), count)
        return chosen.view(factor.shape)

    def _clusters(
        self,
        x: torch.Tensor,
        diverse: torch.Tensor,
        first: torch.Tensor,
        budget: int,
        root: torch.Tensor,
        weight: torch.Tensor,
        importance: torch.Tensor,
    ) -> Merge:
        """Trees of every frame in clusters, as many of a segment as `budget` allows every frame."""
        units, frames, size = diverse.shape
        own = torch.arange(frames * size, device=x.device).expand(units, -1)
        alone = diverse.flatten(1)
        tree = (root == own) & ~alone
        trees = tree.view_as(diverse).sum(2)
        together = of_stretch(sums(trees[..., None].to(torch.float64), first), first)[..., 0].long()
        allowed = budget * lengths(first)
        count = -(-trees * allowed // together.clamp(min=1))
        count = torch.where(allowed < together, count, trees)
        value = Merge(root == own, own, root, weight).values(x.flatten(1, 2)).view_as(x)
        sets = value.flatten(0, 1), tree.view(-1, size), count.flatten()
        centre, nearest = peak_clusters(*sets, count.flatten().clamp(1, 7))
        centre = centre.view(units, -1)
        place = nearest.view(units, frames, size) + size * torch.arange(frames, device=x.device)[:, None]
        place = torch.where(tree, place.flatten(1), own)  # of every root, where its cluster stands
        stays = alone | (tree & centre.gather(1, place))  # where a frame has no cluster its trees leave
        members = torch.zeros_like(own).scatter_add(1, place, stays.long()).clamp(min=1)
        slot = place.gather(1, root)
        return Merge(alone | centre, own, slot, weight / members.gather(1, slot) * stays.gather(1, root), importance)
