"""EADP: patches that cover what the telling words of the question point at."""

import math
from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.budget import check_text
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.coverage import greedy_cover
from seeless.ops.grids import smoothed
from seeless.ops.telling import telling_similarity
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("eadp")
class EADP(EntryStrategy):
    """Keep patches that cover what the words of the question that point at few patches have to do with.

    Formula: with the cosines c_ij of text token i and patch j, p_ij = softmax over j of c_ij / `temperature`, and h_i
    the entropy of p_i, the share `quantile` of the tokens with the lowest h speaks: s_j = `mu` * cos(patch j, whole
    text) + (1 - mu) * sum_i softmax(-h_i / `gamma`) c_ij (`ops.telling.telling_similarity`). s is scaled to 0 ... 1,
    smoothed by a Gaussian of 3 x 3 on the grid, and raised to the power `beta`. Always the patch stays that adds most
    to sum over j of s_j * the highest similarity of j to one that stays (`ops.coverage.greedy_cover`), similarity being
    (cos + 1) / 2 of the projected tokens.
    Signal: with a CLIP tower patches, text tokens and the whole text (its pooled vector) in CLIP's common space; else
    what enters the decoder, the question's embeddings and their mean.
    Paper: "Combating Textual Noise and Redundancy: Entropy-Aware Dense Visual Token Pruning", EADP, ECCV 2026, sections
    4.2 and 4.3, equations 2 to 14.
    Original: SJTU-DeepVisionLab/EADP, without a licence; written from the paper and a description of its behaviour.

    By default all is as in the released code, which made the published tables: similarities to text are negated, int(20
    % of) the tokens speak, and among them is the padding that CLIP's text tower gets. `as_released=False` is the paper:
    similarities as they are, half of the tokens, no padding and no last token among them, and plain cosines between
    patches. The authors use beta=1 for LLaVA and 2 for Qwen2.5-VL. The budget holds for every crop; a share is floored.
    Positions are contiguous (kept on M-RoPE). Reported scores are s before its power.

    Deviations: of LLaVA-NeXT's tiles each has the same budget, in the released code a share by its importance. Where
    all s are equal they count as 1. A crop whose tokens fill no grid (tiles that were resampled) counts as one row.
    M-RoPE positions and DeepStack features, which the released Qwen code loses, are kept, so its tables for Qwen should
    be exceeded.

    Args:
        clip: folder or hub name of the CLIP model the tower came from; None where the tower is no CLIP.
        question: text to compare with, the same for all rows; None reads it from the prompt, row by row.
        mu: weight of the whole text, in [0, 1].
        quantile: share of the text tokens that speak; by default 0.2 as released, else 0.5.
        temperature: of the softmax over patches, above 0.
        gamma: of the softmax over the tokens that speak, above 0.
        beta: exponent of the importance, at least 0.
        as_released: see above.

    Raises:
        UnsupportedModel: in the first forward, if the tower is a CLIP and no `clip` is given, or another one; if it is
            none and one is given.
        InputError: in the first forward, if the question cannot be read.
    """

    clip: str | None = None
    question: str | None = None
    mu: float = 0.5
    quantile: float | None = None
    temperature: float = 0.01
    gamma: float = 0.01
    beta: float = 1.0
    as_released: bool = True
    scope: Scope = field(default="crop", kw_only=True)
    paper = "EADP, ECCV 2026"
    tower = ("features",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("clip", self.clip)
        check_text("question", self.question)
        if not 0 <= self.mu <= 1:
            raise BudgetError(f"mu={self.mu} is no share; give a number from 0 to 1")
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise BudgetError(f"quantile={self.quantile} is no share; give a number above 0, at most 1")
        for name in ("temperature", "gamma"):
            if not 0 < getattr(self, name) < math.inf:
                raise BudgetError(f"{name}={getattr(self, name)!r} is not possible; give a positive number")
        if not 0 <= self.beta < math.inf:
            raise BudgetError(f"beta={self.beta!r} is not possible; give 0 or a positive number")
        if self.threshold is not None:
            raise BudgetError("eadp chooses by what tokens cover together, so it takes no threshold")

    def _vectors(self, ctx: Context) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Patches `[units, visual, dim]`, text tokens `[units, words, dim]`, the whole text `[units, parts, dim]`."""
        question = ctx.question(self.question)
        if not ctx.in_clip_space(self.clip):
            words = ctx.token_embeds([question])
            return ctx.embeds, words, words.mean(1, keepdim=True)
        words = ctx.clip_tokens(self.clip, question, self.as_released)
        return (
            ctx.clip_patches(self.clip),
            words if self.as_released else words[:, :-1],
            ctx.clip_text(self.clip, question),
        )

    def score(self, ctx: Context) -> torch.Tensor:
        patches, words, whole = self._vectors(ctx)
        wide = torch.promote_types(patches.dtype, torch.float32)
        v, t, e = (F.normalize(each.to(patches.device, wide), dim=-1) for each in (patches, words, whole))
        sign = -1 if self.as_released else 1
        share = (0.2 if self.as_released else 0.5) if self.quantile is None else self.quantile
        dense = telling_similarity(sign * (t @ v.transpose(1, 2)), share, self.temperature, self.gamma)
        similarity = self.mu * sign * (v @ e.transpose(1, 2)).mean(2) + (1 - self.mu) * dense
        low, high = similarity.amin(1, keepdim=True), similarity.amax(1, keepdim=True)
        scaled = torch.where(high > low, (similarity - low) / torch.where(high > low, high - low, 1), 1)
        return smoothed(scaled, ctx.grid or (1, 1, scaled.shape[1]))

    def select(self, ctx: Context) -> Keep:
        scores, x = self.score(ctx), ctx.embeds
        x = F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
        like = x @ x.transpose(1, 2)
        like = (like + 1) / 2 if self.as_released else like
        weight = scores.to(x).clamp(min=0) ** self.beta
        chosen = greedy_cover(weight[..., None] * like, ctx.n_keep)
        return Keep.indices(chosen, x.shape[1], scores)
