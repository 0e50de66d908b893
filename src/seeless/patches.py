"""Strategies after which patches leave inside the vision tower, and what these see there."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from seeless.decision import Keep, Merge
from seeless.errors import BudgetError
from seeless.strategy import EntryStrategy, Scope, Stage
from seeless.tower import TowerSignal

if TYPE_CHECKING:
    from seeless.context import Context

InsideSignal = Literal["pixels", "class_attention", "values"]


@dataclass(frozen=True, eq=False)
class PatchContext:
    """A view of pictures (images, tiles, frames) of one size with equally many tokens left, before a tower layer runs.

    A token is what becomes one token of the decoder; where several patches do, they stay or leave together. Read-only;
    tensors carry no gradient.

    Args:
        layer: the tower layer that is about to run, from 0.
        made: the layer whose output the projector takes, the last one of several.
        n_keep: tokens that the budget leaves each of these pictures; all of them where there is no budget.
        index: `[pictures, tokens]`, place of each token in the grid of its picture, ascending.
        grid: (height, width) of the pictures, in tokens.
        video: whether they are frames of videos.
        scores: `[pictures, tokens]`, those of the strategy's decision before these pictures' last layer; None if it
            gave none.
        sources: the object that answers all questions below.
    """

    layer: int
    made: int
    n_keep: int
    index: torch.Tensor
    grid: tuple[int, int]
    video: bool
    scores: torch.Tensor | None
    sources: Any = field(repr=False)

    @cached_property
    def pixels(self) -> torch.Tensor:
        """What the tower was given, `[pictures, tokens, patches of a token, channels, frames, height, width]`.

        As the processor normalised it. Frames are those that one patch spans; a still repeats them.
        """
        return self.sources.pixels()

    @cached_property
    def hidden(self) -> torch.Tensor:
        """What enters the layer, `[pictures, tokens, width]`; of several patches of a token, the mean."""
        return self.sources.hidden()

    @cached_property
    def class_attention(self) -> torch.Tensor:
        """The class token's attention to each token in the layer before, `[pictures, heads, tokens]`, float32.

        Softmax over all patches that layer saw and the class token itself; of several patches of a token, the mean.
        """
        return self.sources.class_attention()

    @cached_property
    def values(self) -> torch.Tensor:
        """Value vectors of the layer before, `[pictures, heads, tokens, head_dim]`; of several patches, the mean."""
        return self.sources.values()

    @cached_property
    def class_value(self) -> torch.Tensor:
        """The class token's value vectors there, `[pictures, heads, head_dim]`."""
        return self.sources.class_value()


class PatchStrategy(EntryStrategy):
    """A strategy after which patches leave inside the vision tower, for good.

    Before each tower layer that `tower_layers` names the core asks `leave` which tokens of a picture stay; that layer
    and all after it run on their patches alone, and on class tokens. Before layer 0 nothing has run but the embedding
    of patches, so all that the patches of a picture tell each other is told without those that left. What stays keeps
    its embedding of position, its rotary position and its attention window. A `Merge` gives the place that stays a new
    value; nothing is given back later. At the entry, layer 0 of the report, the tokens that left leave the decoder's
    input, and with them tokens that show no patch unless `newlines`.

    Of a token that left, `ctx.vision_attention()` and the like say 0, and features are those of a patch of zeros;
    strategies at the entry see only tokens that are left. DeepStack features of a token that stays are its own.

    Errors: `UnsupportedModel` where patches that left would be mixed into others after the tower (tiles that are
    resampled), where a token's patches are no block, where tower layers convolve or pad, or where a strategy reads a
    class token that the tower has not; `InputError` for pictures with padding inside the tower, and for features made
    without or with another strategy.

    Class attributes: `inside` names what `leave` reads of `PatchContext` beside hidden states, so that nothing else is
    kept: "pixels", "class_attention", "values" (with `class_value`).
    """

    scope: Scope = field(default="crop", kw_only=True)
    stage: ClassVar[Stage] = Stage.TOWER
    tower: ClassVar[tuple[TowerSignal, ...] | None] = ()
    adaptive: ClassVar[bool] = True
    may_drop_all: ClassVar[bool] = True  # of what the model's packing leaves of a tile
    rounding = round
    inside: ClassVar[tuple[InsideSignal, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope != type(self).scope:
            raise BudgetError(f"{self.name} ranks within each picture of the tower; leave scope={self.scope!r} out")
        if self.threshold is not None:
            raise BudgetError(f"{self.name} says by itself what stays, so it takes no threshold")

    def tower_layers(self, made: int) -> list[int]:
        """The tower layers before which tokens may leave, ascending; `made` gives what the projector takes.

        Raises:
            BudgetError: the tower is too shallow.
        """
        raise NotImplementedError

    def leave(self, ctx: PatchContext) -> Keep | Merge:
        """Which tokens stay: a `Keep`, or a `Merge` of hidden states, of `[pictures, tokens]`.

        Its scores are what `ctx.scores` is before the next layer, for the tokens that stay. Where it says no `count`,
        the core waits for the mask.
        """
        raise NotImplementedError(f"{type(self).__name__} must define leave")

    def select(self, ctx: "Context") -> Keep:
        return Keep(ctx.tower_stays())
