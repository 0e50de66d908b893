"""VisionZip: keep the tokens the tower looks at, and fold the others into a few contextual ones."""

from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.ties import first_of_best
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope

COSINES_AT_ONCE = 16_777_216


@register("visionzip")
class VisionZip(EntryStrategy):
    """Keep the patches with the highest [CLS] attention, and add the others to a few of themselves.

    Formula: the dominant tokens are the tower's class token and the patches with the highest score_j = mean over heads
    of the class token's attention in the tower layer that made the features. From the rest, in raster order, every
    step-th is a contextual token, step = max(1, floor(rest / contextual)); each other token joins the contextual one of
    the highest cosine of that layer's keys (mean over heads), and contextual token = its own feature + mean of the
    features that joined it, a sum of two, not an average. These features then go through the projector.
    Signal: attention of the tower's class token, keys and features of the same layer; on towers without one the mean
    attention a patch receives.
    Paper: Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", CVPR 2025, arXiv
    2412.04467, sections 3.2 and 3.3, the training-free mode.
    Original: dvlab-research/VisionZip, Apache-2.0.

    The budget is dominant + contextual tokens of every crop, at least one of them dominant: 192 is 162 + 30, 128 is 108
    + 20, 64 is 54 + 10 and 32 is 27 + 5, the class token included. A share is rounded; a budget of all tokens changes
    nothing. The kept tokens of a crop stand in the places of the patches that were chosen, and for the class token in
    that of the first patch that was not; they fill them as class token, dominant, contextual tokens, in this order.
    With `positions="keep"`, on towers without a class token, and where the projector takes in several patches at once,
    dominant and contextual tokens stay in their own places instead. Without a class token all dominant tokens are
    patches. Reported scores are the attention.

    Deviations: the released code puts the class and contextual tokens of LLaVA-NeXT's tiles after the patches of all
    tiles, and ranks padding of tiles that the model cuts away. Scores are means, not sums, of the heads. Keys of towers
    with rotary embeddings are rotated. Where several patches make one token, its attention and key are their mean, and
    where the projector makes it, tokens are summed after the projector. The projector runs on all tokens first.

    Args:
        contextual_share: share of the budget that is contextual, rounded, in [0, 1).
    """

    contextual_share: float = 5 / 32
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2412.04467"
    rounding = round
    tower = ("attention", "keys", "features", "class_token")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.contextual_share < 1:
            raise BudgetError(
                f"contextual_share={self.contextual_share} is not possible; give a number from 0 to below 1"
            )
        if self.scope != "crop":
            raise BudgetError(f"visionzip keeps the class token of every crop, so scope={self.scope!r} is not possible")
        if self.threshold is not None:
            raise BudgetError("visionzip keeps a number of tokens, so it takes no threshold")

    def score(self, ctx: Context) -> torch.Tensor:
        return ctx.vision_attention().mean(1)

    def reduce(self, ctx: Context) -> Decision:
        scores = torch.nan_to_num(self.score(ctx))
        units, visual = scores.shape
        if ctx.n_keep >= visual:
            return Keep(torch.ones_like(scores, dtype=torch.bool), scores, visual)
        led = int(ctx.class_token() is not None)
        contextual = min(round(ctx.n_keep * self.contextual_share), ctx.n_keep - 1)
        patches = ctx.n_keep - contextual - led
        order = top_mask(scores, patches).byte().argsort(dim=1, descending=True, stable=True)
        dominant, rest = order[:, :patches], order[:, patches:]
        places, joins = self._targets(rest.shape[1], contextual, rest.device)
        target, others = rest[:, places], rest[:, joins]
        cluster = self._nearest(ctx.vision_keys(), others, target)
        size = torch.zeros_like(target).scatter_add(1, cluster, torch.ones_like(cluster))

        own = torch.cat([dominant, target], 1)
        place = source = own
        number = torch.arange(ctx.n_keep, device=own.device).expand(units, -1)
        if led:
            free = Keep.indices(own, visual).mask.byte().argsort(dim=1, stable=True)[:, :1]
            place = torch.cat([free, own], 1)
            place = place if self.positions == "keep" else place.sort(1).values
            source = torch.cat([torch.full_like(free, visual), own], 1)
        return Merge(
            Keep.indices(place, visual).mask,
            torch.cat([source, others], 1),
            place.gather(1, torch.cat([number, led + patches + cluster], 1)),
            torch.cat([torch.ones_like(source, dtype=scores.dtype), 1 / size.gather(1, cluster).to(scores)], 1),
            scores,
            features="vision",
            count=ctx.n_keep,
        )

    @staticmethod
    def _targets(rest: int, contextual: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the rest are contextual tokens, and which join them."""
        step = max(1, rest // max(1, contextual))
        target = torch.arange(0, contextual * step, step, device=device)
        chosen = torch.zeros(rest, dtype=torch.uint8, device=device).index_fill(0, target, 1)
        return target, chosen.argsort(stable=True)[: rest - contextual if contextual else 0]

    @staticmethod
    def _nearest(keys: torch.Tensor, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The number of the target most like each token, `[units, tokens]`; `keys` `[units, heads, visual, dim]`."""
        if targets.shape[1] == 0:
            return tokens
        metric = keys.to(torch.promote_types(keys.dtype, torch.float32)).mean(1)
        metric = F.normalize(metric, dim=-1)
        of_tokens, of_targets = (
            metric.gather(1, x[..., None].expand(-1, -1, metric.shape[-1])) for x in (tokens, targets)
        )
        others = of_targets.transpose(1, 2)
        size = max(1, COSINES_AT_ONCE // targets.numel())
        return torch.cat([first_of_best(some @ others)[..., 0] for some in of_tokens.split(size, dim=1)], 1)
