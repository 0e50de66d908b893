"""A plug-in with what a layer method has to be better than at its own layer: chance, and the worst choice there is.

And two methods with one part of theirs exchanged, which shows what that part does on a model.

seeless sweep --model reader --plugin training/baselines.py --strategies fastv,random_2,worst_2 --tasks drawings
"""

import torch

import seeless as sl
from seeless.ops.spectral import spectral_intensity


class Worst(sl.FastV):
    """FastV upside down: keeps what the last prompt token attends to least.

    Formula: score_j = - mean over heads of A[last, j].
    Signal: attention of the last prompt token in the decoder.
    """

    def score(self, ctx: sl.Context) -> torch.Tensor:
        return -super().score(ctx)


@sl.register("worst_2")
class WorstAt2(Worst):
    """FastV upside down, before layer 2."""

    layer: int | list[int] = 2


@sl.register("worst_4")
class WorstAt4(Worst):
    """FastV upside down, before layer 4."""

    layer: int | list[int] = 4


@sl.register("fastv_4")
class FastVAt4(sl.FastV):
    """FastV before layer 4."""

    layer: int | list[int] = 4


@sl.register("random_2")
class RandomAt2(sl.Random):
    """Any tokens, before layer 2."""

    layer: int | list[int] = 2


@sl.register("random_4")
class RandomAt4(sl.Random):
    """Any tokens, before layer 4."""

    layer: int | list[int] = 4


@sl.register("sparsevlm_last")
class SparseVLMByTheLast(sl.SparseVLM):
    """SparseVLM rated by the last token in place of its raters, from the second stage on.

    Formula: as SparseVLM at the first stage, score_j = mean over heads of A[last, j] later.
    Signal: attention of the raters, then of the last prompt token, in the decoder.
    """

    def score(self, ctx: sl.Context) -> torch.Tensor:
        return super().score(ctx) if ctx.stage_index == 0 else ctx.attention("last").mean((1, 2))


@sl.register("clse_change")
class CLSEByChange(sl.CLSE):
    """CLSE without attention at the first stage.

    Formula: score = the change in detail that `evolution` is made of at the first stage, score = attention later.
    Signal: embeddings and hidden states on the image grid, then attention of the last prompt token.
    """

    def score(self, ctx: sl.Context) -> torch.Tensor:
        if ctx.stage_index > 0:
            return super().score(ctx)
        return spectral_intensity(ctx.embeds, ctx.visual, ctx.grid, self.cutoff_ratio)
