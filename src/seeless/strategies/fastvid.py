"""FastVID: of every frame what the tower looks at stays, and a few dense tokens of each segment stand for its rest."""

from dataclasses import field, replace
from typing import Literal

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.peaks import peak_clusters
from seeless.ops.ties import first_of_best
from seeless.ops.topk import top_mask
from seeless.ops.windows import lengths, segments
from seeless.registry import register
from seeless.strategy import EntryStrategy

NEIGHBOURS = 4


@register("fastvid")
class FastVID(EntryStrategy):
    """Keep what the tower looks at in every frame, and merge the rest of a segment into dense tokens of some frames.

    Formula: the video is cut into segments at the `segments` - 1 lowest cosines between the vectors of frames in a row,
    and wherever it is below `segment_similarity`. Of the n tokens of a frame R = floor(n keep) are to stay, C =
    floor(R context) of them context. The R - C with the highest score = a stay as they are. In a segment of L frames
    the last one, and every `step`-th before it, is an anchor frame, and has floor(C L / ceil(L / step)) anchors: of its
    other tokens those of the highest density * distance (`ops.peaks`, four neighbours). For every anchor frame on its
    own, all other tokens of the segment, its anchors among them, go to the anchor of the highest cosine; with q of
    them, whose mean is m, anchor x becomes w x + (1 - w) m, w = max(beta, 1 / (q + 1)).
    Signal: the embeddings x that enter the language model, their means as vectors of frames; a, the vision tower's
    attention (`Context.vision_attention`). With `frames="head"` SigLIP's pooling head gives both.
    Paper: "FastVID: Dynamic Density Pruning for Fast Video Large Language Models", NeurIPS 2025, arXiv 2503.11187.
    Original: https://github.com/LunarShen/FastVID, MIT.

    This is the form for LLaVA-OneVision and LLaVA-Video. Floors make the count a little less than `keep`, by how much
    depends on the segments. A still image is a video of one frame, whose context tokens are merged from its own. Tokens
    that show no patch stay unless `newlines` is False. Positions are kept.

    Deviations: the released code always reads the pooling head, of a SigLIP checkpoint beside the model; that is
    `frames="head"`, `siglip=`. By default vectors and attention are those of the form for Qwen2.5-VL, whose runs of
    like frames and caps are not here; on towers with a class token a is its row. Equal densities go to the lower place,
    where the released code adds noise. A budget of all tokens changes nothing; at least one token of a frame is to
    stay.

    Args:
        keep: share of the tokens of a video, or their number, which stands for that share of every frame.
        frames: where vectors of frames and their attention come from: "mean" of embeddings, or the pooling "head".
        siglip: folder or hub name of the SigLIP whose head it is; None is the tower's own.
        context: share of the budget that is context.
        segments: how many there are at least; all frames apart where there are fewer.
        segment_similarity: cosine of two frames below which a segment ends.
        step: from one anchor frame to the next.
        beta: the least weight of an anchor beside what goes to it, in [0, 1].
    """

    frames: Literal["mean", "head"] = "mean"
    siglip: str | None = None
    context: float = 0.4
    segments: int = 8
    segment_similarity: float = 0.9
    step: int = 4
    beta: float = 0.6
    newlines: bool = field(default=True, kw_only=True)
    paper = "arXiv 2503.11187"
    own_positions = "keep"
    adaptive = True
    tower = ("attention", "pooling")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("context", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise BudgetError(f"{name}={getattr(self, name)} is no share; give a number from 0 to 1")
        for name in ("segments", "step"):
            if getattr(self, name) < 1:
                raise BudgetError(f"{name}={getattr(self, name)} is not possible; give a whole number of at least 1")
        if self.siglip is not None and self.frames != "head":
            raise BudgetError('siglip= names the model of a pooling head, which only frames="head" reads')
        if self.threshold is not None:
            raise BudgetError("fastvid keeps a number of tokens of every frame, so it takes no threshold")
        if self.scope != "image":
            raise BudgetError(f"fastvid takes videos whole; scope={self.scope!r} is not possible, use 'image'")

    def reduce(self, ctx: Context) -> Decision:
        frames, size = ctx.whole_frames()
        units, visual = ctx.index.shape
        head = self.frames == "head"
        attention = ctx.pooling_attention(self.siglip) if head else ctx.vision_attention()
        scores = attention.mean(1).to(ctx.embeds.device)
        keep = self.budget(0)
        budget = max(1, int(size * (keep if isinstance(keep, float) else min(1.0, keep / visual))))
        if budget == size:
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool), scores, visual)
        x = ctx.embeds.to(torch.promote_types(ctx.embeds.dtype, torch.float32)).view(units, frames, size, -1)
        vector = ctx.pooled(self.siglip).view(units, frames, size, -1)[:, :, 0].to(x) if head else x.mean(2)
        likeness = F.cosine_similarity(vector[:, :-1], vector[:, 1:], dim=-1)
        first = segments(likeness, self.segment_similarity, self.segments)

        context = int(budget * self.context)
        salient = top_mask(scores.view(-1, size), budget - context).view(units, frames, size)
        last, long = first + lengths(first) - 1, lengths(first)
        anchor_frames = -(-long // self.step)
        quota = torch.where(
            (last - torch.arange(frames, device=x.device)) % self.step == 0, context * long // anchor_frames, 0
        )
        quota = quota.clamp(max=size - budget + context)
        anchors = peak_clusters(x.flatten(0, 1), ~salient.flatten(0, 1), quota.flatten(), NEIGHBOURS)[0]
        merge = self._merged(x, salient, anchors.view_as(salient), first, last, scores)
        return replace(merge, count=budget) if frames == 1 else merge

    def _merged(
        self,
        x: torch.Tensor,
        salient: torch.Tensor,
        anchors: torch.Tensor,
        first: torch.Tensor,
        last: torch.Tensor,
        scores: torch.Tensor,
    ) -> Merge:
        """Every token that is not salient, once for each anchor frame of its segment, beside what stays itself."""
        units, frames, size = salient.shape
        own = torch.arange(frames * size, device=x.device).expand(units, -1)
        direction, slots, goes = F.normalize(x, dim=-1), [], []
        for number in range(-(-frames // self.step)):
            frame = last - number * self.step  # for each frame's tokens, the anchor frame they look at
            there = frame.clamp(min=0)[..., None]
            others = direction.gather(1, there[..., None].expand_as(direction))
            open_to = anchors.gather(1, there.expand_as(anchors))
            likeness = (direction @ others.transpose(2, 3)).masked_fill(~open_to[:, :, None], -torch.inf)
            slots.append((there * size + first_of_best(likeness)[..., 0]).flatten(1))
            found = ~salient & (frame >= first)[..., None] & open_to.any(2, keepdim=True)
            goes.append(found.flatten(1))
        slot, goes_there = torch.cat(slots, 1), torch.cat(goes, 1)
        came = torch.zeros_like(scores, dtype=x.dtype).scatter_add(1, slot, goes_there.to(x.dtype))
        weight = (1 / (came + 1)).clamp(min=self.beta)
        part = ((1 - weight) / came.clamp(min=1)).gather(1, slot) * goes_there
        itself = torch.where(salient.flatten(1), 1.0, weight * anchors.flatten(1))
        return Merge(
            (salient | anchors).flatten(1),
            torch.cat([own, own.repeat(1, len(slots))], 1),
            torch.cat([own, slot], 1),
            torch.cat([itself, part], 1),
            scores,
        )
