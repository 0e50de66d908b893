"""What every strategy is: a frozen dataclass whose fields are its knobs, and one method that decides."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from seeless.budget import Budget, check_budget, check_schedule, count_kept, counts_on_average, is_one_of
from seeless.decision import Decision, Keep, Merge, described
from seeless.defining import make_fields
from seeless.errors import BudgetError, StrategyError
from seeless.fields import check_value, field_types
from seeless.ops.bipartite import first_of_groups
from seeless.ops.topk import top_mask
from seeless.tower import Look, Tower, TowerSignal

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    from seeless.context import Context
else:

    def dataclass_transform(**options: Any) -> Callable:  # in the standard library from Python 3.11 on
        return lambda cls: cls


WHOLE = 1.0  # what `keep` is where only an average is given
MANY = 576_000  # tokens, so that no share of them is rounded noticeably
Scope = Literal["row", "image", "crop", "frame"]
Positions = Literal["keep", "renumber"]
Past = Literal["keep", "trim"]


class Stage(Enum):
    """Where in the flow of one forward a strategy acts."""

    TOWER = "tower"
    ENTRY = "entry"
    LAYER = "layer"


def _plain_number(value: Any) -> Any:
    """A NumPy (or similar) number as Python's own, so that fields compare, print and serialise alike."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
@dataclass(frozen=True)
class Strategy(ABC):
    """Base of all strategies. Override the lowest rung that is enough: `score`, `select` or `reduce`.

    Subclasses become frozen dataclasses by themselves; every annotated field is a knob, shown in `seeless info`,
    settable from the command line and stored by `to_dict`. Values of fields are checked against their annotations as
    far as these are bool, int, float, str, None, `Literal` and lists and unions of them.

    Args:
        keep: share of the original visual tokens of a unit (float in (0, 1]), number of tokens per unit (int), or one
            of these per stage (list).
        average: what a decoder layer shall see of a unit on average, a share or a number of tokens, in place of `keep`,
            which may be left out: of several stages it then says in what proportion they share (by default as for a
            third of the tokens). Where a method acts once at the entry or in the tower, it is `keep` itself.
        threshold: keep what scores above it, at least one token per unit. A count outranks it, it outranks a share.
        scope: what is ranked together: all visual tokens of a "row", or each "image", "crop" or "frame" on its own.
        positions: "keep" leaves the kept tokens their position ids, "renumber" closes the gaps; None is the method's
            own way (`own_positions`), or "keep" where positions are coordinates of time, height and width (M-RoPE).
        past: "keep" leaves layers before the cut their full KV cache, "trim" cuts it to the kept tokens. Layers of
            linear attention and convolutions have no keys; their state has seen all tokens and cannot forget any.
        newlines: whether visual tokens that show no patch (LLaVA-NeXT's `image_newline`) stay where a crop is reduced;
            they are ranked like any other token in the scopes "row" and "image", and stay where nothing else is left.

    Class attributes: `own_positions` is one way for all stages, or one for each; `one_by_one` asks for groups of a
    single unit; `adaptive` allows `select` to keep another number of tokens than the budget says, and `may_drop_all`
    none at all; `own_count` lets `keep` be None: how many tokens stay is the method's own affair; `no_training` is the
    reason why a model cannot be trained under it, if it cannot. `patches_only` ranks only tokens that show patches.
    `tower` names what it reads of the vision tower, so that nothing else of it is kept: "attention"
    (`vision_attention`, `crop_attention`), "keys" (`vision_keys`), "features" (`vision_features`, `text_similarity`,
    and what a `Merge` of features "vision" takes), "class_token", "reader_attention", "reader_keys", "layers" (what
    `looks_into` names), "pooling" (`pooling_attention`, `pooled`); None: all. Where it names any, only patches rank.
    """

    keep: Budget | list[Budget]
    average: Budget | None = field(default=None, kw_only=True)
    threshold: float | None = field(default=None, kw_only=True)
    scope: Scope = field(default="row", kw_only=True)
    positions: Positions | None = field(default=None, kw_only=True)
    past: Past = field(default="keep", kw_only=True)
    newlines: bool = field(default=False, kw_only=True)

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    stage: ClassVar[Stage]
    own_positions: ClassVar[Positions | tuple[Positions, ...]] = "keep"
    own_count: ClassVar[bool] = False
    patches_only: ClassVar[bool] = False
    one_by_one: ClassVar[bool] = False
    may_drop_all: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    no_training: ClassVar[str] = ""
    tower: ClassVar[tuple[TowerSignal, ...] | None] = None
    rounding: ClassVar[Callable[[float], int]] = math.floor

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        make_fields(cls)

    def __post_init__(self) -> None:
        for knob in dataclasses.fields(self):
            given = getattr(self, knob.name)
            plain = [_plain_number(v) for v in given] if isinstance(given, tuple | list) else _plain_number(given)
            object.__setattr__(self, knob.name, plain)
        if not isinstance(self.keep, list) and not (self.own_count and self.keep is None):
            check_budget(self.keep)
        if self.average is not None:
            self._check_average(self.average)
        types = field_types(type(self))
        for knob in dataclasses.fields(self):
            if (value := getattr(self, knob.name)) is not knob.default and knob.name != "keep":
                check_value(knob.name, value, types[knob.name])
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BudgetError(f"threshold={self.threshold!r} is no number to compare scores with")

    def _check_average(self, average: Budget) -> None:
        check_budget(average, "average")
        if not isinstance(self.keep, list) and not is_one_of(self.keep, WHOLE, average):
            raise BudgetError(f"average={average} is a budget, and so is keep={self.keep}; give one of them")
        if self.threshold is not None:
            raise BudgetError(f"average={average} sets how many tokens stay; leave threshold={self.threshold} out")

    def parts(self) -> list["Strategy"]:
        """The strategies that act: this one alone, unless it is made of others."""
        return [self]

    def layers(self, depth: int) -> list[int]:
        """The layers of a decoder of `depth` layers before which this strategy acts; 0 is the entry."""
        raise NotImplementedError

    def watches(self, depth: int) -> list[int]:
        """Layers whose incoming hidden states `ctx.entering` shall give at later stages."""
        return []

    def looks_into(self, tower: Tower) -> Sequence[Look]:
        """What `ctx.vision_attention(layer, queries)` and `ctx.vision_hidden(layer)` will be asked for, so it is kept.

        Of a class that declares `tower`, only if it names "layers" there.

        Returns:
            `("class", layer)`, `("all", layer)` and `("hidden", layer)`, in any order.
        """
        return ()

    def budget(self, stage_index: int) -> Budget:
        """The budget of one stage."""
        return self.keep[stage_index] if isinstance(self.keep, list) else self.keep

    def positions_at(self, stage_index: int) -> Positions:
        """What becomes of positions at one stage, where they have one axis."""
        own = self.own_positions
        return self.positions or (own if isinstance(own, str) else own[stage_index])

    def keeps_all(self, stage_index: int) -> bool:
        """Whether this stage is to keep everything, so that the strategy is not asked there.

        A strategy that must be asked all the same returns False; one that only wants to see what enters a layer names
        it in `watches`.
        """
        budget = self.budget(stage_index)
        return self.average is None and self.threshold is None and isinstance(budget, float) and budget == 1.0

    def by_threshold(self, stage_index: int) -> bool:
        """Whether scores decide how many tokens a stage keeps."""
        return self.threshold is not None and not isinstance(self.budget(stage_index), int)

    def count(self, stage_index: int, original: int) -> int:
        """Tokens to keep of a unit that entered the decoder with `original` visual tokens; all where `keep` is None."""
        if self.keep is None:
            return original
        return count_kept(self.budget(stage_index), original, type(self).rounding)

    def promised(self, count: int, frame: Sequence[int], patch: Sequence[int]) -> int | None:
        """How many tokens of a complete unit stay at the first stage, before any is looked at; None: values decide.

        Args:
            count: what the budget leaves of the unit.
            frame: of its tokens, as in `Context`.
            patch: of its tokens, as in `Context`.
        """
        return None if self.adaptive or self.by_threshold(0) or self.keep is None else count

    def kept_of(self, stage_index: int, original: int, depth: int) -> int:
        """`count` or, with `average`, what this stage keeps for the layers of a decoder of `depth` to see so many."""
        if self.average is None:
            return self.count(stage_index, original)
        layers = tuple(self.layers(depth))
        return counts_on_average(self.average, original, layers, depth, self._ratios(len(layers)))[stage_index]

    def _ratios(self, stages: int) -> tuple[float, ...]:
        """In what proportion the stages share, as counts of very many tokens."""
        if stages == 1:
            return (1.0,)
        shared = self if isinstance(self.keep, list) else dataclasses.replace(self, keep=1 / 3, average=None)
        return tuple(float(shared.count(stage, MANY)) for stage in range(stages))

    def prepare(self, ctx: "Context") -> torch.Tensor | None:
        """What to look up before the first layer, `[units, ...]`, such as attention in a second prompt (`ctx.second`).

        Called once per prefill and group of complete units; `ctx.prepared` holds the answer at every stage, for the
        units of that stage. None prepares nothing.
        """
        return None

    def score(self, ctx: "Context") -> torch.Tensor:
        """How much each visual token is worth, `[units, visual]`; higher stays."""
        raise NotImplementedError(f"{type(self).__name__} must define score, select or reduce")

    def select(self, ctx: "Context") -> Keep:
        """Which tokens stay. By default the highest scores, or all above `threshold`; of scores that rounding alone may
        set apart (`ops.ties`), those of the lower places."""
        scores = self._checked(self.score(ctx), ctx.index.shape)
        if self.threshold is None or not self.by_threshold(ctx.stage_index):
            return Keep(top_mask(scores, ctx.n_keep), scores, ctx.n_keep)
        return Keep((scores > self.threshold) | top_mask(scores, 1), scores)

    def _checked(self, scores: Any, shape: torch.Size) -> torch.Tensor:
        """Scores `[units, visual]` in float32. Whether they are finite is asked later, with all else about values."""
        given = described(scores)
        if isinstance(scores, torch.Tensor) and scores.shape != shape:
            given = f"{list(scores.shape)} for {list(shape)} [units, visual]"
        elif isinstance(scores, torch.Tensor) and not scores.is_complex():
            return scores.float()
        missing = "; is a return missing?" if scores is None else ""
        raise StrategyError(
            f"{type(self).__name__}.score returned {given}{missing}; return one score per visual token, a tensor of "
            f"{list(shape)} real numbers"
        )

    def reduce(self, ctx: "Context") -> Decision:
        """The decision, `Keep` or `Merge`."""
        return self.select(ctx)

    def to_dict(self) -> dict[str, Any]:
        """The strategy's name and fields as plain JSON; `seeless.from_dict` turns them back."""
        fields = dataclasses.asdict(self)
        if self.average is None:
            del fields["average"]  # as in files that were written before there was one
        return {"strategy": self.name, **fields}


class Recipe(ABC):
    """Something that `apply` takes in place of a strategy, and that becomes one once the model is known."""

    @abstractmethod
    def strategy_for(self, config: Any) -> Strategy:
        """The strategy on a model with this `config` (of `transformers`)."""


class EntryStrategy(Strategy):
    """A strategy that acts once, where the embeddings enter the language model."""

    scope: Scope = field(default="image", kw_only=True)
    stage: ClassVar[Stage] = Stage.ENTRY
    own_positions: ClassVar[Positions | tuple[Positions, ...]] = "renumber"

    def __post_init__(self) -> None:
        if self.average is not None and is_one_of(self.keep, None, WHOLE):
            object.__setattr__(self, "keep", self.average)
        super().__post_init__()
        if isinstance(self.keep, list):
            raise BudgetError(f"{type(self).__name__} acts once and takes one budget, not keep={self.keep}")

    def layers(self, depth: int) -> list[int]:
        return [0]

    def kept_of(self, stage_index: int, original: int, depth: int) -> int:
        return self.count(stage_index, original)


class TowerStrategy(EntryStrategy):
    """A strategy that merges tokens inside the vision tower; at the entry one token of each group stays.

    Before each tower layer from `first` on, up to the last one before the layer whose output the projector takes, the
    core asks `merge` which tokens of a picture become one; `counts` says how many remain each time. Then every patch
    gets the value of its group back, so that layer, the projector, and what other strategies read of the tower
    (`ctx.vision_attention()`, for one patch of a group, not for their sum) are as ever. At the entry, layer 0 of the
    report, the token of a group that comes first in its crop stays and the others leave, and with them tokens that
    show no patch unless `newlines`. Keys and rotary positions of a merged token, and its attention window, are those
    of the token that received. Features a model takes from earlier tower layers (DeepStack) show the groups there were
    then; the token that stays brings its own.

    The budget is that of a picture as the tower takes it in: image, tile or frame. It is met exactly, but for tiles
    that the model cuts padding from, or resamples, after the tower: of those, one token of every group that has any
    left stays, at most as many as of a whole tile. A resampled token belongs to the group of the patch nearest to its
    middle.

    Errors: `UnsupportedModel` where the projector takes several layers' outputs, where a token's patches are no block,
    or where the tower cannot express `proportional`; `BudgetError` for what halving before every layer cannot reach;
    `InputError` for pictures with padding inside the tower, and for features made without or with another strategy.

    Args:
        keep: share of a picture's decoder tokens that remain at the end of the tower, or their number.
        first: the first tower layer to merge before.
        proportional: add log(size) to the attention logits of a merged token, so that it weighs as much as the tokens
            it stands for (arXiv 2210.09461, eq. 1). Only for towers whose layers take an attention mask, with eager
            or sdpa attention.
    """

    first: int = 0
    proportional: bool = False
    scope: Scope = field(default="crop", kw_only=True)
    stage: ClassVar[Stage] = Stage.TOWER
    tower = ()
    adaptive: ClassVar[bool] = True
    rounding = round

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first < 0:
            raise BudgetError(f"first={self.first!r} is no layer of a vision tower; give 0 for the first, or more")
        if self.scope != "crop":
            raise BudgetError(f"{self.name} merges within each picture of the tower; leave scope out or use 'crop'")
        if self.threshold is not None:
            raise BudgetError(f"{self.name} merges down to a budget, so it takes no threshold")

    def counts(self, tokens: int, steps: int) -> list[int]:
        """Tokens of a picture that remain after each of `steps` mergers, of `tokens` there were.

        The numbers that leave are as equal as they can be: the i-th leaves `tokens - i * (tokens - kept) // steps`,
        or `kept * 2 ** (steps - i)` where that is less, since a merger can only halve.

        Raises:
            BudgetError: halving every time leaves too many.
        """
        kept = self.count(0, tokens)
        if tokens > kept * 2**steps:
            least = -(-tokens // 2**steps)
            raise BudgetError(
                f"keep={self.keep} asks for {kept} of {tokens} tokens of a picture, but {steps} mergers that halve at "
                f"most leave {least}; the smallest possible here is keep={least}"
            )
        even = (tokens - i * (tokens - kept) // steps for i in range(1, steps + 1))
        return [min(n, kept * 2 ** (steps - i)) for i, n in enumerate(even, 1)]

    def merge(self, keys: torch.Tensor, sizes: torch.Tensor, count: int) -> Merge:
        """Which tokens become one before a tower layer.

        Args:
            keys: `[units, tokens, head_dim]`, keys of the coming layer, averaged over heads and a token's patches.
            sizes: `[units, tokens]`, how many of the picture's tokens each stands for.
            count: how many must leave.

        Returns:
            A `Merge` of these tokens: its `mask` False on `count` of them, each the `source` of one entry whose `slot`
            is a token that stays.
        """
        raise NotImplementedError(f"{type(self).__name__} must define merge")

    def select(self, ctx: "Context") -> Keep:
        return Keep(first_of_groups(ctx.tower_groups()))


class LayerStrategy(Strategy):
    """A strategy that acts before one or several decoder layers.

    Args:
        layer: `k`: layers 0 ... k-1 see every token, layers k ... the reduced set. A list needs as many budgets.
    """

    layer: int | list[int] = 2
    stage: ClassVar[Stage] = Stage.LAYER
    lowest_layer: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        keeps, layers = self.schedule()
        if (layer := min(layers, default=self.lowest_layer)) < self.lowest_layer:
            raise BudgetError(
                f"layer={layer!r} is not possible for {type(self).__name__}; "
                f"the first layer it can act before is {self.lowest_layer}"
            )
        check_schedule(keeps, layers)

    def schedule(self) -> tuple[list[Budget], list[int]]:
        """The budget and the layer of every stage, to be checked; where the model's depth decides, any layers."""
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        return self.keep if isinstance(self.keep, list) else [self.keep], layers

    def layers(self, depth: int) -> list[int]:
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        if layers[-1] >= depth:
            raise BudgetError(
                f"layer={self.layer} lies outside this model, whose decoder has {depth} layers (0 to {depth - 1})"
            )
        return layers
