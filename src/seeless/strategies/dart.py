"""DART: keep a few pivots, and what resembles them least."""

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import LayerStrategy


@register("dart")
class Dart(LayerStrategy):
    """Keep a few pivots and, for every pivot, the visual tokens that duplicate it least.

    Formula: pivots are the visual tokens, and the text tokens after the image, with the highest score_j = sum |k_j|, k
    the rotated keys of layer `layer - 1` over all heads. Pivot after pivot, in the order of the sequence, chooses int(T
    / pivots) of the visual tokens not yet chosen: those with the lowest cosine to it, of hidden states entering layer
    `layer` through the decoder's final norm. Text pivots only guide.
    Signal: keys and hidden states of the decoder; no attention is read.
    Paper: Wen et al., "Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters More",
    EMNLP 2025, arXiv 2502.11494, section 3.3 (definition 1: pivots, definition 2: duplicates), theory in 3.4; pivots:
    section 5.2, layer and their number: section 5.3 and the caption of table 1.
    Original: ZichenWen1/DART, Apache-2.0 by its README; known here from two other implementations.

    A share is floored. Tokens keep their positions, earlier layers their full cache. The L1 norm of a rotated key
    depends on its position: with left padding pass `position_ids`, as `generate` does by itself, or the same row may
    get other pivots.

    Deviations: those implementations keep visual pivots + pivots * int(T / pivots) tokens, 132 for 128. Here exactly T
    stay: the choice ends with the T-th token (late pivots may choose fewer), or, where that is not reached, the first
    pivots choose one more.

    Args:
        layer: the reduction is before it.
        visual_pivots: how many, at least 1.
        text_pivots: how many; all there are where the text is shorter.
    """

    layer: int | list[int] = 2
    visual_pivots: int = 4
    text_pivots: int = 4
    paper = "arXiv 2502.11494"
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("visual_pivots", 1), ("text_pivots", 0)):
            value = getattr(self, name)
            if value < least:
                raise BudgetError(f"{name}={value!r} is not possible; give a whole number of at least {least}")
        if self.threshold is not None:
            raise BudgetError("dart chooses by duplication, not by a score, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        visual = _directions(ctx.normed())
        first = min(self.visual_pivots, ctx.n_keep)
        keep = top_mask(_loudness(ctx.keys()), first).to(visual.device)
        pivots = _places(visual, keep, first)
        if self.text_pivots and ctx.text.shape[1]:
            text = _directions(ctx.normed(tokens="text"))
            count = min(self.text_pivots, text.shape[1])
            loud = top_mask(_loudness(ctx.keys(tokens="text")), count)
            pivots = torch.cat([pivots, _places(text, loud.to(text.device), count)], 1)
        likeness = pivots @ visual.transpose(1, 2)
        for pivot, quota in enumerate(self._quotas(ctx.n_keep, pivots.shape[1])):
            alike = likeness[:, pivot].masked_fill(keep, torch.inf)
            keep = keep | top_mask(-alike, quota, size=1)
        return Keep(keep, count=ctx.n_keep)

    def _quotas(self, count: int, pivots: int) -> list[int]:
        """How many tokens every pivot gives."""
        left = count - min(self.visual_pivots, count)
        each = count // pivots
        more = max(0, left - each * pivots)
        quotas = []
        for pivot in range(pivots):
            quotas.append(min(left, each + (pivot < more)))
            left -= quotas[-1]
        return quotas


def _loudness(keys: torch.Tensor) -> torch.Tensor:
    """L1 norm of `keys` `[units, kv_heads, tokens, dim]` over heads and dimensions, `[units, tokens]`."""
    return keys.float().abs().sum((1, 3))


def _directions(hidden: torch.Tensor) -> torch.Tensor:
    """Unit vectors, float32 at least."""
    return F.normalize(hidden.to(torch.promote_types(hidden.dtype, torch.float32)), dim=-1)


def _places(tokens: torch.Tensor, mask: torch.Tensor, count: int) -> torch.Tensor:
    """The masked tokens `[units, count, dim]`, `count` of every unit, in ascending order."""
    place = mask.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
    return tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[-1]))
