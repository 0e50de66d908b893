"""SparseVLM: the words that have to do with the image say which tokens stay; the best of the rest are merged."""

from typing import Literal

import torch

from seeless.budget import Budget
from seeless.context import Context
from seeless.decision import Decision, Keep, Merge
from seeless.errors import BudgetError, InputError, brief
from seeless.ops.clustering import density_peaks
from seeless.ops.raters import text_raters
from seeless.ops.ties import ranking
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.strategy import LayerStrategy, Positions

BUDGETS = {
    "1.0": {64: (66, 30, 17), 96: (238, 48, 26), 128: (303, 110, 36), 192: (300, 200, 110)},
    "2.0": {64: (66, 34, 20), 96: (246, 54, 28), 128: (238, 108, 60), 192: (300, 200, 118)},
}
PAPER_TOKENS = 576  # of LLaVA-1.5, which the budgets were made for
ROWS_AT_ONCE = 32
LEAST_BIAS = 1e-6


@register("sparsevlm")
class SparseVLM(LayerStrategy):
    """Keep the tokens that the image-related words of the prompt attend to; merge the best of the others.

    Formula: score_j = mean over heads and raters r of A[r, j], A the attention of layer `layer - 1`. Raters are the
    text tokens after the image that its embeddings resemble more than the average one (`ops.raters.text_raters`).
    Signal: attention of the raters in the decoder; embeddings, which choose them once.
    Paper: Zhang et al., "SparseVLM", ICML 2025, arXiv 2410.04417, sections 3.2 and 3.4.
    Original: Gumpest/SparseVLMs, Apache-2.0.

    Version "1.0" recycles: of the p tokens dropped, the floor(0.3 p) + 1 best, t of them, are merged into floor(t / 10)
    + 1 clusters (`ops.clustering.density_peaks`), each the mean of its tokens at the place of its centre. Version "2.0"
    merges nothing, divides A by the rotary bias (`Context.rope_bias`; less than 1e-6 counts as 1e-6) and averages over
    the `heads` heads with the largest sum. By default "1.0" renumbers positions at every stage and "2.0" keeps them.
    Shares are of the original tokens and floored.

    Raters are words that the average visual token resembles. Where embeddings of text and image share no space, that
    says little: on the embedded model `reader` it is mostly a single word, the one that is nearest to blank
    patches, and 24 % of its answers are right at 64 of 576 tokens; 75 % if the last token rates from the second stage
    on.

    Deviations: budgets are fixed, as released, where section 3.3 adapts them. The released code appends clusters behind
    the kept tokens and exceeds the budget by their number; here clusters stand where their centre stood, and both
    together are exactly the budget, with as few clusters as that allows and at least one token kept as it is. A budget
    of all drops none (released: at least one).

    Args:
        keep: 192, 128, 96 or 64 name the released budgets of three stages; between these, down to 0 and up to all the
            unit's tokens the budgets of each stage are interpolated linearly and floored. A share r stands for 576 r
            and for shares of 576. A list has the budget of each stage; with one layer the one budget is that stage's.
        layer: one layer per stage; by default 3, 7 and 16 of 32, scaled with the depth and rounded half up, each at
            least one after the one before.
        version: "1.0", of the paper's tables, or "2.0" ("SparseVLM+").
        heads: how many heads version "2.0" listens to; all where there are fewer.
        seed: of the noise that settles equal densities in version "1.0".
    """

    layer: int | list[int] | None = None  # type: ignore[assignment]
    version: Literal["1.0", "2.0"] = "1.0"
    heads: int = 14
    seed: int = 0
    paper = "arXiv 2410.04417"
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, smallest in (("heads", self.heads, 1), ("seed", self.seed, 0)):
            if not smallest <= value < 2**63:
                raise BudgetError(
                    f"{name}={brief(value)} is not possible; give a whole number from {smallest} on, below 2^63"
                )
        if self.threshold is not None:
            raise BudgetError("sparsevlm has a fixed budget for each stage, so it takes no threshold")

    @property
    def own_positions(self) -> Positions:  # type: ignore[override]
        return "renumber" if self.version == "1.0" else "keep"

    def schedule(self) -> tuple[list[Budget], list[int]]:
        stages, listed = self._stages(), isinstance(self.keep, list)
        keeps = self.keep if isinstance(self.keep, list) else [self.keep] * stages
        if len(keeps) != stages or (not listed and stages not in (1, 3)):
            raise BudgetError(f"keep={self.keep} is no budget for {stages} stages; give a list of {stages}")
        return keeps, [1, 2, 3] if self.layer is None else super().schedule()[1]

    def _stages(self) -> int:
        return 3 if self.layer is None else len(self.layer) if isinstance(self.layer, list) else 1

    def layers(self, depth: int) -> list[int]:
        if self.layer is not None:
            return super().layers(depth)
        layers = [0]
        for layer in (3, 7, 16):
            layers.append(max(layers[-1] + 1, (2 * depth * layer + 32) // 64))
        if layers[-1] >= depth:
            raise BudgetError(f"a decoder of {depth} layers has no room for three stages; name them with layer=")
        return layers[1:]

    def count(self, stage_index: int, original: int) -> int:
        if isinstance(self.keep, list) or self._stages() == 1:
            return super().count(stage_index, original)
        share = isinstance(self.keep, float)
        nominal, tokens = (self.keep * PAPER_TOKENS, PAPER_TOKENS) if share else (self.keep, original)
        points = [(0, 0), *((k, min(b[stage_index], tokens)) for k, b in BUDGETS[self.version].items() if k < tokens)]
        points.append((tokens, tokens))
        right = next((i for i, (k, _) in enumerate(points) if k >= nominal), len(points) - 1)
        (k, low), (k_next, high) = points[right - 1], points[right]
        wanted = low + (high - low) * (min(nominal, k_next) - k) / (k_next - k)
        return max(1, min(original, int(original * wanted / tokens)))

    def score(self, ctx: Context) -> torch.Tensor:
        rows = ctx.text_embeds.shape[1]
        if rows == 0:
            raise InputError("no token follows the image, so there is no text whose attention could be read")
        if "raters" not in ctx.memory:
            ctx.memory["raters"] = text_raters(ctx.embeds.float(), ctx.text_embeds.float())
        weight = ctx.memory["raters"].float()
        weight = (weight / weight.sum(1, keepdim=True)).split(ROWS_AT_ONCE, dim=1)
        parts = []
        for some, own in zip(torch.arange(-rows, 0).split(ROWS_AT_ONCE), weight, strict=True):
            attention = ctx.attention(some)
            if self.version == "2.0":
                bias = ctx.rope_bias(some)
                attention = attention / torch.where(bias < 0, bias.clamp(max=-LEAST_BIAS), bias.clamp(min=LEAST_BIAS))
            parts.append((attention * own[:, None, :, None].to(attention)).sum(2))
        rated = torch.stack(parts).sum(0)
        if self.version == "2.0" and rated.shape[1] > self.heads:
            best = top_mask(rated.sum(2), self.heads)
            rated = rated[best].view(len(rated), self.heads, -1)
        return rated.mean(1)

    def _clusters(self, visual: int, budget: int) -> int:
        if self.version == "2.0" or budget == visual:
            return 0
        recycled = ((count, int(0.3 * (visual - budget + count)) + 1) for count in range(budget))
        return next((count for count, tokens in recycled if count == tokens // 10 + 1), budget - 1)

    def reduce(self, ctx: Context) -> Decision:
        scores = torch.nan_to_num(self.score(ctx).float())
        visual = scores.shape[1]
        clusters = self._clusters(visual, ctx.n_keep)
        if clusters == 0:
            return Keep(top_mask(scores, ctx.n_keep), scores, ctx.n_keep)
        kept = ctx.n_keep - clusters
        order = ranking(scores)
        source = order[:, kept : kept + int(0.3 * (visual - kept)) + 1]
        states = ctx.visual.gather(1, source[..., None].expand(-1, -1, ctx.visual.shape[-1])).float()
        noise = torch.rand(source.shape[1], generator=torch.Generator().manual_seed(self.seed))
        cluster, centre = density_peaks(states, clusters, noise)
        size = cluster.new_zeros(len(cluster), clusters).scatter_add(1, cluster, torch.ones_like(cluster))
        mask = Keep.indices(torch.cat([order[:, :kept], source.gather(1, centre)], 1), visual).mask
        weight = 1 / size.gather(1, cluster)
        return Merge(mask, source, source.gather(1, centre).gather(1, cluster), weight, scores, count=ctx.n_keep)
