"""PruMerge and PruMerge+: keep the tokens that stand out, add to each what resembles it, and sum up the rest."""

from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.budget import Budget
from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.ties import rounding
from seeless.ops.topk import top_indices, top_mask
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope

LIKENESSES_AT_ONCE = 2**22


@register("prumerge")
class PruMerge(EntryStrategy):
    """Keep the patches that the class token singles out, add similar patches to each, and sum up the rest.

    Formula: score_j = c_j, the class token's attention in the tower layer that reads the features, as if it had one
    head of its whole width: softmax(q k^T / sqrt(width)) (`Context.reader_attention`). Without `keep` the patches stay
    whose score is an outlier, c_j > Q3 + 1.5 (Q3 - Q1) over the unit, at least one. Every kept patch i becomes y_i =
    x_i + sum of c_j x_j over the `neighbours` patches j, kept or not, with the highest cosine to it of that layer's
    keys, and one more token is the sum of c_j x_j over all patches not kept; x is what the projector takes in, and the
    sums then go through it.
    Signal: attention of the class token, keys and input of the tower layer that reads the features.
    Paper: Shang et al., "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models", ICCV 2025,
    arXiv 2403.15388, sections 3.2 and 3.3, without the fine-tuning.
    Original: 42Shawn/LLaVA-PruMerge, Apache-2.0.

    With `keep` exactly so many tokens stay: the keep - 1 highest scores and the one more, or with keep=1 the highest
    alone; a share is rounded, and a budget of all tokens changes nothing. The one more token stands in the place of the
    last patch not kept; there is none where all are kept. Positions are contiguous (kept on M-RoPE).

    Deviations: kept patches stay in the order of the picture, the released code puts the highest score first. Outliers
    are counted for every unit on its own, there over the batch. On towers without a class token the score is the mean
    attention a patch receives; where the features come from the tower's last layer, which no layer reads, scores and
    keys are that layer's. Keys of towers with rotary embeddings are rotated. Where several patches make one token,
    scores and keys are their mean; where the projector makes it, tokens are summed after the projector.

    Args:
        keep: tokens per unit, or their share, the one more token included; None: as many as stand out.
        neighbours: how many patches are added to a kept one; all others where there are fewer.
    """

    keep: Budget | None = None  # type: ignore[assignment]
    neighbours: int = 32
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2403.15388"
    own_count = True
    rounding = round
    tower = ("features", "reader_attention", "reader_keys")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 0:
            raise BudgetError(f"neighbours={self.neighbours!r} is not possible; give a whole number of at least 0")
        if self.threshold is not None:
            raise BudgetError(f"{self.name} finds its own threshold or has a budget, so it takes no threshold")

    def score(self, ctx: Context) -> torch.Tensor:
        return ctx.reader_attention()

    def reduce(self, ctx: Context) -> Decision:
        scores = torch.nan_to_num(self.score(ctx))
        visual = scores.shape[1]
        if self.keep is not None and ctx.n_keep == visual:
            return Keep(torch.ones_like(scores, dtype=torch.bool), scores, visual)
        kept = self._standing_out(scores) if self.keep is None else self._best(scores, ctx.n_keep)
        most = int(kept.sum(1).max()) if self.keep is None else max(1, ctx.n_keep - 1)
        spare = ~kept.all(1, keepdim=True) if self.keep is None or ctx.n_keep > 1 else torch.zeros_like(kept[:, :1])
        place = visual - 1 - kept.flip(1).byte().argsort(dim=1, stable=True)[:, :1]

        token = kept.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        real = kept.gather(1, token)
        near = self._similar(ctx.reader_keys(), token)
        added = scores.gather(1, near.flatten(1)) * real.repeat_interleave(near.shape[2], 1)
        everything = torch.arange(visual, device=scores.device).expand_as(scores)
        return Merge(
            kept.scatter(1, place, kept.gather(1, place) | spare),
            torch.cat([token, near.flatten(1), everything], 1),
            torch.cat([token, token.repeat_interleave(near.shape[2], 1), place.expand_as(scores)], 1),
            torch.cat([real.to(scores.dtype), added, scores * ~kept * spare], 1),
            scores,
            features="vision",
            count=None if self.keep is None else ctx.n_keep,
        )

    def _standing_out(self, scores: torch.Tensor) -> torch.Tensor:
        """What stays where there is no budget, `[units, visual]` bool, the one more token left out."""
        low, high = scores.quantile(torch.tensor([0.25, 0.75], dtype=scores.dtype, device=scores.device), dim=1)
        bound = (high + 1.5 * (high - low)) * (1 + rounding(scores.dtype))
        return (scores > bound[:, None]) | top_mask(scores, 1)

    def _best(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        """What stays of a budget of `count`, `[units, visual]` bool, the one more token left out."""
        return top_mask(scores, max(1, count - 1))

    def _similar(self, keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The neighbours of some `tokens` `[units, tokens]`, never they themselves, `[units, tokens, neighbours]`."""
        directions = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=-1)
        units, visual = keys.shape[:2]
        found, others = [], directions.transpose(1, 2)
        for some in tokens.split(max(1, LIKENESSES_AT_ONCE // (units * visual)), dim=1):
            own = directions.gather(1, some[..., None].expand(-1, -1, directions.shape[-1]))
            likeness = (own @ others).scatter(2, some[..., None], -torch.inf)
            found.append(top_indices(likeness, min(self.neighbours, visual - 1)))
        return torch.cat(found, 1)


@register("prumerge_plus")
class PruMergePlus(PruMerge):
    """PruMerge that also keeps patches spread evenly over the picture.

    Formula: score_j = c_j and all else as in `PruMerge`. With n of the unit's N patches standing out, the patches 0, s,
    2 s, ... below N - 1 stay, too, s = max(1, floor(floor(N / n) / 3)): about three times as many.
    Signal: that of `PruMerge`.
    Paper: Shang et al., ICCV 2025, arXiv 2403.15388, "PruMerge+".
    Original: 42Shawn/LLaVA-PruMerge, Apache-2.0.

    With `keep` a quarter of the patches kept, floored and at least one, has the highest scores, and the others are
    spread evenly over what is left: of M patches in raster order the floor(i M / m)-th, i = 0 ... m - 1. The one more
    token is part of the budget.

    Deviations: those of `PruMerge`. Released code fails where s would be 0; here s is 1 then, and nearly all stay.

    Args:
        keep: tokens per unit, or their share, the one more token included; None: as many as the above gives.
        neighbours: how many patches are added to a kept one; all others where there are fewer.
    """

    def _standing_out(self, scores: torch.Tensor) -> torch.Tensor:
        kept, visual = super()._standing_out(scores), scores.shape[1]
        step = (visual // kept.sum(1, keepdim=True) // 3).clamp(min=1)
        place = torch.arange(visual, device=scores.device)
        return kept | ((place % step == 0) & (place < visual - 1))

    def _best(self, scores: torch.Tensor, count: int) -> torch.Tensor:
        best = max(1, (count - 1) // 4)
        kept = top_mask(scores, best)
        spread = max(0, count - 1 - best)
        rest = kept.byte().argsort(dim=1, stable=True)[:, : scores.shape[1] - best]
        chosen = torch.arange(spread, device=scores.device) * rest.shape[1] // max(1, spread)
        return kept.scatter(1, rest[:, chosen], True)
