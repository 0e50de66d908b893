"""FlowCut: let patches leave the tower that little of the class token's information flows through."""

import math

import torch

from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.ties import ranking
from seeless.patches import PatchContext, PatchStrategy
from seeless.registry import register


@register("flowcut")
class FlowCut(PatchStrategy):
    """Let patches leave every other layer of the vision tower, the faster the narrower its class token looks.

    Formula: in tower layer l, s_j = (a_j / sum a + g_j / sum g) |v_j|, a the class token's attention to the patches,
    averaged over heads, g = softmax over the patches of <v_class, v_j>, averaged over heads, v the value vectors and
    |v_j| the L1 norm of their mean over heads. The score is s in the first layer, and half of what it was plus half of
    s in each after it. With m the layer that gives the features, so that rho = m - 1 - l layers remain after l and
    before m: after every layer l > 0 with an even rho > 0, of the n patches that are left
    round((n - T) / sqrt(rho) (1 - (H / log n)^2)) leave, H the entropy of a / sum a and T the budget; after layer
    m - 1 the T highest scores stay.
    Signal: attention and values of every tower layer before the one that gives the features.
    Paper: "FlowCut: Rethinking Redundancy via Information Flow for Efficient Vision-Language Models", NeurIPS 2025,
    arXiv 2505.19536.
    Original: TungChintao/FlowCut, Apache-2.0.

    The class token never leaves; towers without one are refused. What stays keeps the order of the picture.

    Deviations:
    - How many leave is worked out for every picture on its own, there by the widest look of a batch.
    - On LLaVA-NeXT the original leaves half of the work to the decoder; here all is done in the tower, tile by tile.
    - Where several patches make one token, they leave together, by the means of their a and v.
    - The original is for CLIP with 24 layers, m = 22; elsewhere the same counts back from m.

    Args:
        keep: share (rounded) of a picture's decoder tokens that remain, or their number.
    """

    paper = "arXiv 2505.19536"
    inside = ("class_attention", "values")

    def tower_layers(self, made: int) -> list[int]:
        if made < 1:
            raise BudgetError(
                f"the features come from tower layer {made}, so no layer before it could say which patches leave; set "
                "vision_feature_layer to the output of a later layer"
            )
        return list(range(1, made + 1))

    def leave(self, ctx: PatchContext) -> Keep:
        attention, values, own = ctx.class_attention.mean(1), ctx.values.float(), ctx.class_value.float()
        attention = attention / attention.sum(1, keepdim=True)
        flow = torch.einsum("uhd,uhnd->uhn", own, values).softmax(-1).mean(1)
        scores = (attention + flow / flow.sum(1, keepdim=True)) * values.mean(1).abs().sum(-1)
        if ctx.scores is not None:
            scores = (ctx.scores + scores) / 2
        tokens, rest = ctx.index.shape[1], ctx.made - ctx.layer
        if tokens == ctx.n_keep or rest % 2 or (ctx.layer == 1 and rest > 0):
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool), scores, tokens)
        rank = ranking(scores).argsort(dim=1)
        if rest == 0:
            return Keep(rank < ctx.n_keep, scores, ctx.n_keep)
        entropy = -torch.special.xlogy(attention, attention).sum(1)
        leave = (tokens - ctx.n_keep) / math.sqrt(rest) * (1 - (entropy / math.log(tokens)) ** 2)
        return Keep(rank < tokens - leave.round().long()[:, None], scores)
