"""A plug-in with what a layer method has to be better than at its own layer: chance, and the worst choice there is.

seeless sweep --model reader --plugin training/baselines.py --strategies fastv,random_2,worst_2 --tasks drawings
"""

import torch

import seeless as sl


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
