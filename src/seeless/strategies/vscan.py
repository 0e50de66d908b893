"""VScan: local and global scans of the tower, merging, and a second cut in the middle of the decoder."""

import math
from dataclasses import field
from typing import ClassVar

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.grids import windows
from seeless.ops.ties import first_of_best, ranking
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import Positions, Scope
from seeless.tower import Look, Tower
from seeless.two_stage import TwoStageStrategy

PIECE = 4_194_304  # most cosines that are worked on at once


@register("vscan")
class VScan(TwoStageStrategy):
    """Keep what a shallow tower layer looks at in every window and a deep one in all, merge the rest, and cut again.

    Formula: with T tokens for the entry, the floor(T / 2 / windows) patches with the highest a of the shallow layer
    stay in every window of the picture, then the T - floor(T / 2) others with the highest a of the deep layer; a is the
    class token's attention, mean over heads. Every other token is added to the one that stays of the highest cosine of
    projected tokens; value = (own + sum of those that joined) / (1 + their number). Before layer `layer`
    floor(n * `later`) tokens stay: those the last prompt token is about to look at, mean over heads, in that layer.
    Signal: attention of the tower's class token in two layers; on towers without one what a patch receives; attention
    of the last prompt token in the coming decoder layer.
    Paper: "VScan: Rethinking Visual Token Reduction for Efficient Large Vision-Language Models", TMLR 2026, arXiv
    2505.22654.
    Original: Tencent/SelfEvolvingAgent, folder VScan, MIT.

    `keep` is meant as the average over the decoder's layers: T = `expansion` * keep, of which `later` stay for the
    second half (64 for 96, then 32; Qwen2.5-VL's 11.1 % for 16.7 %, then a third of these). A share of tokens is
    floored. The budget holds for every crop, at both stages. Since every window gets the same, a budget that its
    windows do not divide leaves some tokens unused. Positions are renumbered at both stages (kept on M-RoPE). Reported
    scores are a of the deep layer, and the decoder's attention.

    Deviations: windows are a quarter of the picture's height and width each, as even as they can be; the released code
    has 6 x 6 patches on CLIP's 24 x 24, and 4 x 4 tokens on Qwen2.5-VL. A crop whose tokens fill no grid (tiles that
    were resampled) counts as one row. Queries and keys of the decoder have their rotary embedding on every model, in
    the released code for Qwen2.5-VL they have none.

    Args:
        layer: of the second stage; by default half of the depth (16 of 32, 14 of 28).
        expansion: of the budget at the entry, for what the second stage drops.
        later: share of what is left that the second stage keeps.
        shallow: the tower layer of the local scan, from 0; by default the first that sees whole pictures from five
            twenty-fourths of the tower on (5 of CLIP's 24, 7 of Qwen2.5-VL's 32).
        windows: how many there are along the height and along the width.
    """

    expansion: float = 1.5
    later: float = 1 / 3
    shallow: int | None = None
    windows: int = 4
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2505.22654"
    own_positions: ClassVar[Positions | tuple[Positions, ...]] = "renumber"
    only_scope = "crop"
    tower = ("layers",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.later <= 1:
            raise BudgetError(f"later={self.later} is no share; give a number above 0, at most 1")
        if not 0 < self.expansion < math.inf:
            raise BudgetError(f"expansion={self.expansion} is not possible; give a number above 0 such as 1.5")
        if self.windows < 1:
            raise BudgetError(f"windows={self.windows} is not possible; a picture has at least one")
        if self.shallow is not None and self.shallow < 0:
            raise BudgetError(f"shallow={self.shallow} is no layer of a vision tower; give 0 for the first, or more")

    def looks_into(self, tower: Tower) -> list[Look]:
        return [(tower.asking, layer) for layer in self._layers(tower)]

    def _layers(self, tower: Tower) -> tuple[int, int]:
        """The shallow and the deep tower layer."""
        begin = max(tower.first, tower.layers * 5 // 24)
        return tower.whole_from(begin) if self.shallow is None else self.shallow, tower.made

    def reduce(self, ctx: Context) -> Decision:
        if ctx.stage_index == 1:
            scores = ctx.attention("last", layer=ctx.layer).mean((1, 2))
            count = max(1, int(ctx.index.shape[1] * self.later + 1e-9))
            return Keep(top_mask(scores, count), scores, count)
        near, far = (ctx.vision_attention(layer, ctx.tower.asking).mean(1) for layer in self._layers(ctx.tower))
        visual = far.shape[1]
        total = min(visual, max(1, int(self.expansion * self.share(visual) * visual + 1e-9)))
        if total == visual:
            return Keep(torch.ones_like(far, dtype=torch.bool), far, visual)
        local = self._local(near, ctx.grid or (1, 1, visual), total // 2)
        chosen = torch.cat([local, self._rest(far, local, total - total // 2)], 1)
        return self._merged(ctx.embeds, chosen, far)

    def _local(self, scores: torch.Tensor, grid: tuple[int, int, int], budget: int) -> torch.Tensor:
        """The best of every window, as many of each, `[units, chosen]`."""
        members: dict[int, list[int]] = {}
        for place, window in enumerate(windows(grid, self.windows)):
            members.setdefault(window, []).append(place)
        found = [scores.new_zeros(len(scores), 0, dtype=torch.long)]
        for own in members.values():
            places = torch.tensor(own, device=scores.device)
            best = ranking(scores[:, places])[:, : budget // len(members)]
            found.append(places.expand(len(scores), -1).gather(1, best))
        return torch.cat(found, 1)

    @staticmethod
    def _rest(scores: torch.Tensor, chosen: torch.Tensor, count: int) -> torch.Tensor:
        """The best of all others, `[units, count]`."""
        return ranking(scores.scatter(1, chosen, -1.0))[:, :count]

    @staticmethod
    def _merged(embeds: torch.Tensor, chosen: torch.Tensor, scores: torch.Tensor) -> Merge:
        visual = scores.shape[1]
        mask = Keep.indices(chosen, visual).mask.to(embeds.device)
        order = mask.byte().argsort(dim=1, descending=True, stable=True)
        own, others = order.split([chosen.shape[1], visual - chosen.shape[1]], 1)
        x = F.normalize(embeds.to(torch.promote_types(embeds.dtype, torch.float32)), dim=-1)
        of_own, of_others = (x.gather(1, places[..., None].expand(-1, -1, x.shape[-1])) for places in (own, others))
        pieces = of_others.split(max(1, PIECE // own.numel()), dim=1)
        nearest = torch.cat([first_of_best(some @ of_own.transpose(1, 2))[..., 0] for some in pieces], 1)
        joined = own.gather(1, nearest)
        slot = torch.cat([own, joined], 1)
        size = torch.zeros_like(order).scatter_add(1, slot, torch.ones_like(slot))
        return Merge(mask, order, slot, 1 / size.gather(1, slot).to(x), scores, count=chosen.shape[1])
