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
from seeless.vtr.attention import LazyAttention
from seeless.vtr.base import PruningStrategy, VTRStrategy
from seeless.vtr.builtin import BuiltIn
from seeless.vtr.config import VTRConfig
from seeless.vtr.registry import get_strategy

logger = logging.getLogger("seeless.vtr")


class Guest(Strategy):
    """Runs a guest strategy by the rules of PriorTR's framework. Made by `VTRConfig`, not by hand.

    Every row of a batch is a prompt of its own to the guest, without its padding. The visual tokens are one range: all
    text before the last of them, also text between images, is put before it.
    """

    config: VTRConfig | None = None
    guest: Any = None
    ways: BuiltIn | None = None
    stage: ClassVar[Stage] = Stage.LAYER
    own_positions: ClassVar[Positions] = "keep"
    steps: ClassVar[dict[int, int]] = {}
    one_by_one: ClassVar[bool] = True
    may_drop_all: ClassVar[bool] = True

    @classmethod
    def of(cls, config: VTRConfig) -> "Guest":
        """The strategy for a configuration without None fields."""
        guest = get_strategy(str(config.strategy))
        ways = guest if isinstance(guest, BuiltIn) else BuiltIn()
        ways.check(config)
        return cls(keep=1.0, config=config, guest=guest, ways=ways, scope=ways.scope, past="trim")

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
        everything = Keep(torch.ones_like(ctx.index, dtype=torch.bool))
        if self._config.video_pruning_mode == "none" and bool((ctx.frame >= 0).any()):
            return everything
        return _Call(self, ctx).decision(everything)


class _Call:
    """One cut of one prompt."""

    def __init__(self, owner: Guest, ctx: Context) -> None:
        self.owner, self.ctx, self.guest, self.config = owner, ctx, owner.guest, owner._config
        seq, places = ctx.hidden.shape[1], ctx.places[0]
        visual = torch.zeros(seq, dtype=torch.bool, device=places.device)
        visual[places] = True
        order = torch.arange(seq, device=places.device)
        before = order[~visual & (order < places[-1])]
        after = order[~visual & (order > places[-1])]
        self.order = torch.cat([before, places, after])
        self.range = len(before), len(before) + len(places)
        parameters = inspect.signature(self.guest.compute_scores).parameters
        self.counts_cuts = isinstance(self.guest, VTRStrategy) or (
            "layer_idx" in parameters and not isinstance(self.guest, PruningStrategy)
        )
        self.before_decoder = owner._ways.before_decoder
        self.step = 0 if self.before_decoder else owner.steps[ctx.layer]
        self.context: dict[str, Any] = ctx.memory.setdefault("context", {})
        self.looks_like: torch.Tensor | None = None

    def _attention(self, layer: int) -> LazyAttention:
        order, ctx, causal = self.order, self.ctx, not self.config.as_released

        def read(rows: torch.Tensor) -> torch.Tensor:
            chosen = order[rows.to(order.device)]
            found = ctx.attention(chosen, layer=layer, onto="row", causal=causal)[0]
            return found[:, :, order.to(found.device)]

        if self.looks_like is None:
            self.looks_like = ctx.attention("last")[0]
        return LazyAttention(read, len(self.looks_like), len(order), ctx.hidden.dtype, self.looks_like.device)

    def _fresh(self, hidden: torch.Tensor) -> dict[str, Any]:
        """What the context holds at this cut, beside what the strategy and earlier cuts put there."""
        ctx, layer = self.ctx, self.ctx.layer
        found: dict[str, Any] = {
            "hidden_states": hidden,
            "step": self.step,
            "score_layer": layer - 1,
            "original_tokens": ctx.n_original,
        }
        if ctx.grid is not None:
            found["grid_hw"] = ctx.grid[1:]
            found["grid_thw"] = ctx.grid
        if earlier := self.owner.watches(layer):
            found["z_ref"] = ctx.entering(max(earlier))[0]
        if self.before_decoder:
            attention = ctx.vision_attention()[0].mean(0)
            found |= {"vit_importance": attention, "vit_merged_features": ctx.embeds[0].to(attention.device)}
        else:
            found["next_attention"] = self._attention(layer)
        return found

    def _call(self, function: Any, *args: Any, context: dict[str, Any]) -> Any:
        """Call with those of the context's entries that the function takes."""
        parameters = inspect.signature(function).parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            context = {name: value for name, value in context.items() if name in parameters}
        return function(*args, **context)

    def decision(self, everything: Keep) -> Decision:
        guest, context, (start, end) = self.guest, self.context, self.range
        visual = end - start
        if "cache" not in context:
            context["cache"] = {}
            context |= {"total_pruned_tokens": 0, "total_merged_tokens": 0}
            if callable(getattr(guest, "prepare", None)):
                context["image_token_range"] = self.range
                guest.prepare(self.ctx.row_embeds[:, self.order], self.config, context)
                context.pop("image_token_range", None)
        step = self.step
        config = self.config if self.counts_cuts else self.config.at_step(step)
        hidden = self.ctx.uninjected[:, self.order.to(self.ctx.uninjected.device)]
        given = {**context, **self._fresh(hidden)}
        given["layer_idx"] = step if self.counts_cuts else self.ctx.layer - 1
        attention = None if self.before_decoder else self._attention(self.ctx.layer - 1)
        scores = self._call(guest.compute_scores, attention, self.range, config, context=given)
        self._check_scores(scores, visual)
        more = {"layer_idx": step} if self.counts_cuts else {}
        base = VTRStrategy if self.counts_cuts else PruningStrategy
        select = getattr(guest, "select_tokens", None) or partial(base.select_tokens, guest)
        kept = self._call(select, scores, visual, config, context=more)
        kept = self._checked(kept, visual)
        if self.config.debug:
            logger.info("%s before layer %d keeps %d of %d", self.owner.name, self.ctx.layer, len(kept), visual)
        shown = scores.float()[None]
        if len(kept) >= visual or (len(kept) == 0 and self.config.backbone.keeps_all_for_none):
            return Keep(everything.mask, shown)
        mask = torch.zeros(visual, dtype=torch.bool, device=kept.device)
        mask[kept] = True
        context["pruned_token_scores"] = scores[~mask.to(scores.device)]
        context["total_pruned_tokens"] += visual - len(kept)
        new = self._inserted(hidden, kept, given, step)
        if new is None:
            return Keep(mask[None], shown)
        context["total_merged_tokens"] += new.shape[1]
        return Extend(mask[None], new, shown)

    def _inserted(
        self, hidden: torch.Tensor, kept: torch.Tensor, given: dict[str, Any], step: int
    ) -> torch.Tensor | None:
        """Rows that `post_prune` put after the visual tokens, `[1, rows, dim]`."""
        post_prune = getattr(self.guest, "post_prune", None)
        if post_prune is None:
            return None
        (start, end), kept = self.range, kept.to(hidden.device)
        pruned = torch.cat([hidden[:, :start], hidden[:, start + kept], hidden[:, end:]], 1)
        at = start + len(kept)
        fresh = {**given, "pruned_token_scores": self.context["pruned_token_scores"], "layer_idx": step}
        fresh.pop("hidden_states")
        result = self._call(post_prune, hidden, pruned, kept, (start, at), self.config, context=fresh)
        rows = result.shape[1] - pruned.shape[1]
        same = rows >= 0 and torch.equal(torch.cat([result[:, :at], result[:, at + rows :]], 1), pruned)
        if not same:
            raise InputError(
                f"{type(self.guest).__name__}.post_prune changed rows it was given; it may only insert rows at "
                f"{at}, the end of the visual tokens"
            )
        return result[:, at : at + rows] if rows else None

    def _check_scores(self, scores: Any, visual: int) -> None:
        if not isinstance(scores, torch.Tensor) or scores.shape != (visual,):
            given = f"shape {list(scores.shape)}" if isinstance(scores, torch.Tensor) else f"a {type(scores).__name__}"
            raise InputError(
                f"{type(self.guest).__name__}.compute_scores gave {given} for {visual} visual tokens; return a tensor "
                "[visual], squeezed of batch and heads"
            )

    def _checked(self, kept: Any, visual: int) -> torch.Tensor:
        fits = isinstance(kept, torch.Tensor) and kept.ndim == 1 and kept.dtype != torch.bool
        if not fits or (len(kept) and not (int(kept.min()) >= 0 and int(kept.max()) < visual)):
            raise InputError(
                f"{type(self.guest).__name__}.select_tokens gave {kept!r}; return places [kept] from 0 to {visual - 1}"
            )
        return kept.long().unique()
