"""PruneSID: groups of one meaning each, and of every group what does not repeat."""

import math
from dataclasses import field

from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.groups import not_repeating, principal_groups, shared_out
from seeless.ops.ties import ranking
from seeless.registry import register
from seeless.strategy import EntryStrategy, Scope


@register("prunesid")
class PruneSID(EntryStrategy):
    """Keep of every group of patches with one meaning the most looked at that do not repeat each other.

    Formula: patches belong to the principal component of the sigmoids of their features on which they weigh most, of
    `groups` * T components (`ops.groups.principal_groups`). In each group, in descending order of attention, those stay
    on the list that have a cosine of at most T / `base` * the mean cosine of two patches to every one before
    (`ops.groups.not_repeating`). Groups share the T tokens in proportion to the lengths of their lists, each at least
    one and at most `most` * ceil(T / 64) (`ops.groups.shared_out`).
    Signal: the features that the projector takes in, and attention of the tower's class token, mean over heads; on
    towers without one what a patch receives.
    Paper: "PruneSID", ICLR 2026, arXiv 2603.09480.
    Original: ZhengyaoFang/PruneSID, Apache-2.0 by its README.

    The budget holds for every crop; a share is floored. Positions are contiguous (kept on M-RoPE). Reported scores are
    the attention.

    Deviations: the class token is no token of the decoder, so all T are patches, and these stay in raster order; the
    released code has the class token first and then group after group. Components are exact, there by a randomised
    method. Lists that are too short for a group's part are filled up by attention. How parts are rounded is not known;
    here it is by the highest averages.

    Args:
        groups: components per token of the budget.
        base: budget for which patches repeat each other above the mean cosine.
        most: tokens a group has at most, for every 64 of the budget.
    """

    groups: float = 0.25
    base: float = 32.0
    most: int = 5
    scope: Scope = field(default="crop", kw_only=True)
    paper = "arXiv 2603.09480"
    tower = ("attention", "features")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.groups <= 1:
            raise BudgetError(f"groups={self.groups} is not possible; give a number above 0, at most 1")
        if not 0 < self.base < math.inf:
            raise BudgetError(f"base={self.base!r} is not possible; give a positive number")
        if self.most < 1:
            raise BudgetError(f"most={self.most} is not possible; give a whole number of at least 1")
        if self.threshold is not None:
            raise BudgetError("prunesid shares a budget among groups, so it takes no threshold")

    def select(self, ctx: Context) -> Keep:
        attention, features = ctx.vision_attention().mean(1), ctx.vision_features()
        features = features.to(attention.device)
        group = principal_groups(features, max(1, int(ctx.n_keep * self.groups)))
        first = not_repeating(features, group, ranking(attention), ctx.n_keep / self.base)
        most = self.most * math.ceil(ctx.n_keep / 64)
        return Keep(shared_out(group, first, attention, ctx.n_keep, most), attention, ctx.n_keep)
