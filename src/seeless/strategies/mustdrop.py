"""MustDrop: merge flat windows in the tower, and drop what the text neither looks at on the whole nor once."""

from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.context import Context
from seeless.decision import Keep, Merge
from seeless.errors import BudgetError
from seeless.ops.ties import ranking
from seeless.patches import PatchContext, PatchStrategy
from seeless.registry import register
from seeless.strategy import Past, Scope
from seeless.tower import Look, Tower

ROWS_AT_ONCE = 32  # of attention, of all units
LAYERS, DEPTH = (3, 7, 11, 15), 32  # of the decoder that the original is for


@register("mustdrop")
class MustDrop(PatchStrategy):
    """Merge flat windows of patches in the tower, then drop before four layers what the text does not look at.

    Formula: after the first tower layer the grid of a picture falls into windows of `window` x `window` tokens; where
    the mean cosine of all pairs of a window is at least `flat`, they become one token, their mean, in the place of the
    last. The key set is the ceil(`key_share` n) tokens, of the n that are left, with the highest attention, averaged
    over heads, of the class token in the tower layer after the one that gives the features. Before each of the decoder
    layers, with A[t, j] the attention of the text after the image in the layer before, averaged over heads, token j
    leaves if sum_t A[t, j] < `total` sum_j sum_t A[t, j] and max_t A[t, j] < `largest`, unless it is of the key set.
    Signal: hidden states and class token of the tower, attention of all text after the image in four decoder layers.
    Paper: "Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model", arXiv 2411.10803.
    Original: liuting20/MustDrop, Apache-2.0 by its README.

    There is no budget: thresholds decide. The defaults are those the authors use for 192 tokens on TextVQA; for 128
    they take total=0.0012, for 64 total=0.011 and largest=0.01, for 64 on VizWiz total=0.005. Positions are renumbered
    at every stage (kept on M-RoPE), and caches of earlier layers are trimmed.

    Deviations:
    - Tokens keep the order of the picture; the original puts merged windows first, the most similar foremost.
    - All windows that are flat enough are merged in every picture on its own, there in each picture of a batch as many
      as in the one that has the fewest.
    - Caches of all earlier layers are trimmed; the original leaves the first two whole.
    - The original is for decoders of 32 layers and 24 x 24 patches. Elsewhere the layers stand at the same shares of
      the depth, what does not fill a window is left alone, and a token of several patches counts by their mean; on
      towers without a class token the key set is by the mean attention received, and where no layer reads the
      features, by the layer that gives them.

    Args:
        keep: None; thresholds decide.
        window: tokens per side of a window.
        flat: mean cosine from which on a window is merged; above 1 none is.
        key_share: share of the tokens that are left which no decoder layer drops.
        total: share of the text's attention below which a token may leave (g).
        largest: attention of a single text token below which it may leave (i).
        layer: decoder layers; None: 3, 7, 11 and 15 of 32, or the same shares of the depth.
    """

    keep: None = None  # type: ignore[assignment]
    window: int = 3
    flat: float = 0.8
    key_share: float = 0.08
    total: float = 0.001
    largest: float = 0.001
    layer: list[int] | None = None
    scope: Scope = field(default="image", kw_only=True)
    past: Past = field(default="trim", kw_only=True)
    own_count = True
    paper = "arXiv 2411.10803"
    tower = ("layers",)

    def __post_init__(self) -> None:
        if self.keep is not None or self.average is not None:
            raise BudgetError(
                f"mustdrop drops by thresholds, so it takes no budget (keep={self.keep}, average={self.average}); set "
                "flat, total and largest"
            )
        super().__post_init__()
        if self.window < 2:
            raise BudgetError(f"window={self.window} has nothing to merge; give 2 or more tokens per side")
        if not 0 < self.key_share <= 1:
            raise BudgetError(f"key_share={self.key_share} is no share; give one above 0, up to 1")
        if self.layer is not None and (not self.layer or self.layer != sorted({own for own in self.layer if own > 0})):
            raise BudgetError(
                f"layer={self.layer} is no list of decoder layers; give whole numbers from 1 on, ascending"
            )

    def layers(self, depth: int) -> list[int]:
        own = self.layer or sorted({max(1, round(layer * depth / DEPTH)) for layer in LAYERS})
        if own[-1] >= depth:
            raise BudgetError(
                f"layer={own} lies outside this model, whose decoder has {depth} layers (0 to {depth - 1})"
            )
        return [0, *own]

    def tower_layers(self, made: int) -> list[int]:
        if made < 1:
            raise BudgetError(
                f"the features come from tower layer {made}, so windows merged after the first layer would not show; "
                "set vision_feature_layer to the output of a later layer"
            )
        return [1]

    def looks_into(self, tower: Tower) -> list[Look]:
        return [(tower.asking, self._reader(tower))]

    def leave(self, ctx: PatchContext) -> Keep | Merge:
        side, (height, width) = self.window, ctx.grid
        down, across = height // side, width // side
        token = torch.arange(height * width, device=ctx.index.device).view(height, width)
        token = token[: down * side, : across * side].unflatten(1, (across, side)).unflatten(0, (down, side))
        token = token.transpose(1, 2).reshape(down * across, side * side)
        if token.numel() == 0:
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool), count=ctx.index.shape[1])
        window = F.normalize(ctx.hidden[:, token].float(), dim=-1)
        size = side * side
        pairs = window.sum(2).square().sum(-1) - window.square().sum((2, 3))
        merged = (pairs / (size * (size - 1)) >= self.flat)[..., None].expand(-1, -1, size)
        last = token[:, -1:].expand_as(token)
        mask = torch.ones_like(ctx.index, dtype=torch.bool)
        mask[:, token] = ~merged | (token == last)
        weight = torch.where(merged, 1 / size, 1.0).flatten(1)
        return Merge(mask, token.expand_as(merged).flatten(1), torch.where(merged, last, token).flatten(1), weight)

    def prepare(self, ctx: Context) -> torch.Tensor:
        """`[units, visual]` bool, the key set."""
        stays = ctx.tower_stays()
        attention = ctx.vision_attention(self._reader(ctx.tower)).mean(1).masked_fill(~stays, -1.0)
        return ranking(attention).argsort(dim=1) < (stays.sum(1, keepdim=True) * self.key_share).ceil()

    def select(self, ctx: Context) -> Keep:
        if ctx.layer == 0:
            return Keep(ctx.tower_stays())
        total, largest = self._looks(ctx)
        leaves = (total < self.total * total.sum(1, keepdim=True)) & (largest < self.largest)
        assert ctx.prepared is not None
        key = ctx.prepared.to(leaves.device).gather(1, ctx.index.to(leaves.device))
        return Keep(~leaves | key, total)

    @staticmethod
    def _looks(ctx: Context) -> tuple[torch.Tensor, torch.Tensor]:
        """`[units, visual]` both: the text's attention, averaged over heads, summed up and at its highest."""
        if (text := ctx.text_embeds.shape[1]) == 0:
            ctx.attention("text")  # says that there is no text
        total = largest = torch.zeros(())
        for rows in torch.arange(-text, 0).split(max(1, ROWS_AT_ONCE // len(ctx.index))):
            attention = ctx.attention(rows).mean(1)
            total = total.to(attention.device) + attention.sum(1)
            largest = torch.maximum(largest.to(attention.device), attention.amax(1))
        return total, largest

    @staticmethod
    def _reader(tower: Tower) -> int:
        """The layer that reads the features, or makes them if none does."""
        return min(tower.made + 1, tower.layers - 1)
