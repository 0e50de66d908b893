"""AnchorPrune: the relevant patches as an anchor, and around it what is looked at and differs."""

from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.budget import check_text
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.anchors import anchor_size, expanded
from seeless.ops.ties import ranking
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("anchorprune")
class AnchorPrune(EntryStrategy):
    """Keep the patches most relevant to the question, as many as bring news, and then what is looked at and differs.

    Formula: patches are ranked by relevance. The anchor is the first K_min = round(`anchor` * K) of them, and as many
    of the next, up to `most` * K, as it takes until `patience` have had a novelty above `novelty`: 1 - the highest
    cosine to the first K_min (`ops.anchors.anchor_size`). Then always the patch with the highest a_j * min(1, least
    cosine distance to those that stay) is added, until there are K (`ops.anchors.expanded`).
    Signal: with a CLIP tower relevance is minus the mean cosine to the question's segments in CLIP's common space
    (patches resemble a text the less, the more it is about them), novelty is of the patches there, distance of the
    tower's features; else relevance is the highest cosine to a token of the question, and all is of what enters the
    decoder. a is the attention of the tower's class token, on towers without one what a patch receives.
    Paper: "AnchorPrune: Relevance-Anchored Contextual Expansion for Visual Token Pruning", ECCV 2026, arXiv 2607.07033.
    Original: MULTI-cau/AnchorPrune, Apache-2.0.

    The authors' K_min for K = 32, 64, 128, 256 are 5, 10, 20, 40. The budget holds for every crop; a share is floored.
    Positions are contiguous (kept on M-RoPE). Reported scores are the relevance.

    Deviations: the text of the paper could not be had; this follows a description of the code's behaviour. The original
    knows LLaVA-1.5 and Qwen2.5-VL alone, single crops.

    Args:
        clip: folder or hub name of the CLIP model the tower came from; None where the tower is no CLIP.
        question: text to compare with, the same for all rows; None reads it from the prompt, row by row.
        anchor: share of the budget that is the least anchor, in [0, 1].
        most: share of the budget that is the largest anchor, in [0, 1].
        novelty: cosine distance from which on a patch brings news.
        patience: so many patches that bring news end the anchor.

    Raises:
        UnsupportedModel: in the first forward, if the tower is a CLIP and no `clip` is given, or another one; if it is
            none and one is given.
        InputError: in the first forward, if the question cannot be read.
    """

    clip: str | None = None
    question: str | None = None
    anchor: float = 5 / 32
    most: float = 0.5
    novelty: float = 0.2
    patience: int = 3
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2607.07033"
    tower = ("attention", "features")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("clip", self.clip)
        check_text("question", self.question)
        for name in ("anchor", "most"):
            if not 0 <= getattr(self, name) <= 1:
                raise BudgetError(f"{name}={getattr(self, name)} is no share; give a number from 0 to 1")
        if not 0 <= self.novelty <= 2:
            raise BudgetError(f"novelty={self.novelty} is no cosine distance; give a number from 0 to 2")
        if self.patience < 1:
            raise BudgetError(f"patience={self.patience} is not possible; give a whole number of at least 1")
        if self.threshold is not None:
            raise BudgetError("anchorprune chooses in two steps, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        attention = ctx.vision_attention().mean(1)
        question = ctx.question(self.question)
        if ctx.in_clip_space(self.clip):
            patches, features = ctx.clip_patches(self.clip), ctx.vision_features()
            texts = F.normalize(ctx.clip_text(self.clip, question), dim=-1)
            relevance = -(F.normalize(patches, dim=-1) @ texts.transpose(1, 2)).mean(2)
        else:
            patches = features = ctx.embeds
            words = ctx.token_embeds([question])
            wide = torch.promote_types(features.dtype, torch.float32)
            x, z = (F.normalize(each.to(features.device, wide), dim=-1) for each in (features, words))
            relevance = (x @ z.transpose(1, 2)).amax(2)
        relevance = relevance.to(attention.device)
        order = ranking(relevance, size=1)
        least = min(max(1, round(self.anchor * ctx.n_keep)), ctx.n_keep)
        most = max(least, int(self.most * ctx.n_keep))
        size = anchor_size(patches.to(order.device), order, least, most, self.novelty, self.patience)
        start = order.argsort(dim=1) < size[:, None]
        chosen = expanded(features.to(order.device), attention, start, ctx.n_keep)
        return Keep(chosen, relevance, ctx.n_keep)
