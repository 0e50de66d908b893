"""A guest strategy as one of seeless' own: what it is called with, and what becomes of its answer."""

import inspect
import logging
from functools import partial
from typing import Any, ClassVar

import torch

from seeless.context import Context
from seeless.decision import Decision, Extend, Keep
from seeless.errors import InputError
from seeless.strategy import Positions, Stage, Strategy
from seeless.vtr.base import PruningStrategy, VTRStrategy
from seeless.vtr.builtin import BuiltIn, merges, ways_of
from seeless.vtr.config import VTRConfig
from seeless.vtr.deferred import Deferred
from seeless.vtr.missing import MissingEntry, missing_entry
from seeless.vtr.registry import get_strategy
from seeless.vtr.shown import Shown
from seeless.vtr.wholemaps import WholeMaps

logger = logging.getLogger("seeless.vtr")


class Guest(Strategy):
    """Runs a guest strategy by the rules of PriorTR's framework. Made by `VTRConfig`, not by hand.

    Every row of a batch is a prompt of its own to the guest, without its padding. The visual tokens are one range: all
    text before the last of them, also text between images, is put before it.
    """

    config: VTRConfig | None = None
    guest: Any = None
    ways: BuiltIn | None = None
    maps: WholeMaps | None = None
    stage: ClassVar[Stage] = Stage.LAYER
    own_positions: ClassVar[Positions] = "keep"
    steps: ClassVar[dict[int, int]] = {}
    one_by_one: ClassVar[bool] = True
    may_drop_all: ClassVar[bool] = True

    @classmethod
    def of(cls, config: VTRConfig) -> "Guest":
        """The strategy for a configuration without None fields."""
        name = str(config.strategy)
        guest = get_strategy(name)
        ways = ways_of(guest, name)
        config.merging = config.merging or (config.token_merge and merges(guest))
        ways.check(config)
        maps = WholeMaps(type(guest).__name__)
        return cls(keep=1.0, config=config, guest=guest, ways=ways, maps=maps, scope=ways.scope, past="trim")

    @property
    def name(self) -> str:  # type: ignore[override]
        """As registered."""
        return str(self._config.strategy)

    @property
    def _config(self) -> VTRConfig:
        assert self.config is not None
        return self.config

    def to_dict(self) -> dict[str, Any]:
        return self._config.to_dict()

    def keeps_all(self, stage_index: int) -> bool:
        return False

    def count(self, stage_index: int, original: int) -> int:
        return original

    @property
    def _ways(self) -> BuiltIn:
        assert self.ways is not None
        return self.ways

    def layers(self, depth: int) -> list[int]:
        if not self._config.enabled:
            return []
        if self._ways.before_decoder:
            return [0]
        given = self._ways.schedule(self._config, depth)
        object.__setattr__(self, "steps", {layer: given.index(layer) for layer in given})
        return sorted(layer for layer in self.steps if 0 < layer <= depth)

    def watches(self, depth: int) -> list[int]:
        if self._ways.before_decoder or not self._config.enabled:
            return []
        return [layer for layer in self._ways.references(self._config) if 0 <= layer < depth]

    def reduce(self, ctx: Context) -> Decision:
        if self._config.video_pruning_mode == "none" and bool((ctx.frame >= 0).any()):
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool))
        assert self.maps is not None
        step = 0 if self._ways.before_decoder else self.steps[ctx.layer]
        return _Call(self, step, Shown(ctx, self._config, self.maps)).decision()


class _Call:
    """One cut of one prompt.

    Args:
        owner: whose guest is called.
        step: the number of the cut.
        shown: what the guest sees.
    """

    def __init__(self, owner: Guest, step: int, shown: Shown) -> None:
        self.owner, self.step, self.shown = owner, step, shown
        self.guest, self.config, self.ctx = owner.guest, owner._config, shown.ctx
        parameters = inspect.signature(self.guest.compute_scores).parameters
        self.counts_cuts = isinstance(self.guest, VTRStrategy) or (
            "layer_idx" in parameters and not isinstance(self.guest, PruningStrategy)
        )
        self.context: dict[str, Any] = self.ctx.memory.setdefault("context", {})

    def _call(self, method: str, function: Any, *args: Any, context: dict[str, Any]) -> Any:
        """Call with those of the context's entries that the function takes."""
        parameters = inspect.signature(function).parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            context = {name: value for name, value in context.items() if name in parameters}
        try:
            return function(*args, **context)
        except KeyError as error:
            hint = missing_entry(error, context, self.ctx.layer)
            if hint is None:
                raise
            raise MissingEntry(f"{type(self.guest).__name__}.{method}: {hint}") from error

    def _prepared(self) -> None:
        """Once per prompt: the guest's own preparation."""
        context = self.context
        if "cache" in context:
            return
        context |= {"cache": {}, "total_pruned_tokens": 0, "total_merged_tokens": 0}
        if callable(getattr(self.guest, "prepare", None)):
            context["image_token_range"] = self.shown.range
            self.guest.prepare(self.shown.embeds, self.config, context)
            context.pop("image_token_range", None)

    def _scores(self, visual: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """What the guest thinks of each visual token, `[visual]`, and what it was told."""
        layer, before_decoder = self.ctx.layer, self.owner._ways.before_decoder
        told = {**self.shown.entries(self.owner.watches(layer), before_decoder), **self.context, "step": self.step}
        told["layer_idx"] = self.step if self.counts_cuts else layer - 1
        attention = None if before_decoder else self.shown.attention(layer - 1, not self.config.as_released)
        config = self.config if self.counts_cuts else self.config.at_step(self.step)
        function = self.guest.compute_scores
        scores = self._call("compute_scores", function, attention, self.shown.range, config, context=told)
        if not isinstance(scores, torch.Tensor) or scores.shape != (visual,):
            given = f"shape {list(scores.shape)}" if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
            raise InputError(
                f"{type(self.guest).__name__}.compute_scores gave {given} for {visual} visual tokens; return a tensor "
                "[visual], squeezed of batch and heads"
            )
        return (scores.dense() if isinstance(scores, Deferred) else scores), told

    def _kept(self, scores: torch.Tensor, visual: int) -> torch.Tensor:
        """The places that stay, ascending."""
        config = self.config if self.counts_cuts else self.config.at_step(self.step)
        base = VTRStrategy if self.counts_cuts else PruningStrategy
        select = getattr(self.guest, "select_tokens", None) or partial(base.select_tokens, self.guest)
        more = {"layer_idx": self.step} if self.counts_cuts else {}
        kept = self._call("select_tokens", select, scores, visual, config, context=more)
        fits = isinstance(kept, torch.Tensor) and kept.ndim == 1 and kept.dtype != torch.bool
        if not fits or (len(kept) and not (int(kept.min()) >= 0 and int(kept.max()) < visual)):
            raise InputError(
                f"{type(self.guest).__name__}.select_tokens gave {kept!r}; return places [kept] from 0 to {visual - 1}"
            )
        return kept.long().unique()

    def decision(self) -> Decision:
        """What becomes of the visual tokens."""
        context, (start, end) = self.context, self.shown.range
        visual = end - start
        self._prepared()
        scores, told = self._scores(visual)
        kept = self._kept(scores, visual)
        if self.config.debug:
            logger.info("%s before layer %d keeps %d of %d", self.owner.name, self.ctx.layer, len(kept), visual)
        shown = scores.float()[None]
        if len(kept) >= visual or (len(kept) == 0 and self.config.backbone.keeps_all_for_none):
            return Keep(torch.ones_like(self.ctx.index, dtype=torch.bool), shown)
        mask = torch.zeros(visual, dtype=torch.bool, device=kept.device)
        mask[kept] = True
        context["pruned_token_scores"] = scores[~mask.to(scores.device)]
        context["total_pruned_tokens"] += visual - len(kept)
        new = self._inserted(kept, told)
        if new is None:
            return Keep(mask[None], shown)
        context["total_merged_tokens"] += new.shape[1]
        return Extend(mask[None], new, shown)

    def _inserted(self, kept: torch.Tensor, told: dict[str, Any]) -> torch.Tensor | None:
        """Rows that `post_prune` put after the visual tokens, `[1, rows, dim]`."""
        post_prune = getattr(self.guest, "post_prune", None)
        if post_prune is None:
            return None
        hidden, (start, end) = self.shown.hidden, self.shown.range
        kept = kept.to(hidden.device)
        pruned = torch.cat([hidden[:, :start], hidden[:, start + kept], hidden[:, end:]], 1)
        at = start + len(kept)
        fresh = {**told, "pruned_token_scores": self.context["pruned_token_scores"], "layer_idx": self.step}
        fresh.pop("hidden_states")
        result = self._call("post_prune", post_prune, hidden, pruned, kept, (start, at), self.config, context=fresh)
        rows = result.shape[1] - pruned.shape[1]
        same = rows >= 0 and torch.equal(torch.cat([result[:, :at], result[:, at + rows :]], 1), pruned)
        if not same:
            raise InputError(
                f"{type(self.guest).__name__}.post_prune changed rows it was given; it may only insert rows at "
                f"{at}, the end of the visual tokens"
            )
        return result[:, at : at + rows] if rows else None


VTRConfig.runner = Guest.of
