"""The seam between decoder layers: where hidden states are cut, and where later layers get masks that fit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer

from seeless.core.attention import LayerTap, read_nothing
from seeless.core.cache import CacheRecord
from seeless.core.capture import Call, Capture, run_ahead
from seeless.core.family import ModelView
from seeless.core.hooks import HookSet
from seeless.core.host import CACHE, cache_in
from seeless.core.positions import gather_tokens
from seeless.core.session import PlannedStage, Session
from seeless.errors import UnsupportedModel


@dataclass
class LayerInputs:
    """What a range of layers gets in place of the model's full-length arguments."""

    mask: Any
    rotary: tuple


def causal_mask(
    view: ModelView,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    cache: Any,
    layer: int,
    blocks: torch.Tensor | None = None,
) -> Any:
    """The mask the model's own attention kernel wants for `hidden` at this layer.

    Args:
        mask: 2-D, `[batch, past + slots]`, None = all visible.
        blocks: `[batch, slots]`, tokens of one block see each other both ways; None = plainly causal.

    Raises:
        UnsupportedModel: the kernel takes no mask that could express the blocks.
    """
    made = create_causal_mask(
        config=view.language_model.config,
        inputs_embeds=hidden,
        attention_mask=None if mask is None else mask.to(hidden.device),
        layer_idx=layer,
        block_sequence_ids=None if blocks is None else blocks.to(hidden.device),
        **{CACHE: cache},
    )
    if blocks is not None:
        check_both_ways(view, made)
    return made


def check_both_ways(view: ModelView, mask: Any) -> None:
    """Refuse a mask of the model's that cannot say that tokens see each other both ways.

    Raises:
        UnsupportedModel: it cannot.
    """
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
        kernel = view.language_model.config._attn_implementation
        raise UnsupportedModel(
            f"visual tokens of {view.family.title} see each other both ways, which attn_implementation={kernel!r} "
            "cannot express; load the model with 'sdpa' or 'eager'"
        )


def ready_mask(view: ModelView, hidden: torch.Tensor, mask: Any, cache: Any, blocks: torch.Tensor | None) -> Any:
    """4-D masks for all layers, in the form in which the base model hands them over; arguments as `causal_mask`."""
    kinds = {view.layer_kind(index): index for index in reversed(range(view.depth))}
    made = {kind: causal_mask(view, hidden, mask, cache, index, blocks) for kind, index in kinds.items()}
    return made if len(made) > 1 else next(iter(made.values()))


def token_blocks(types: torch.Tensor, prefix: bool) -> torch.Tensor:
    """Which tokens see each other both ways, `[batch, seq]`, from their `token_type_ids`; -1 = none.

    Args:
        prefix: all of the prompt (type 0) is one block; else every run of visual tokens (type 1) is one.
    """
    if prefix:
        return torch.where(types == 0, 0, -1)
    visual = types == 1
    first = visual & ~torch.nn.functional.pad(visual, (1, 0))[:, :-1]
    return torch.where(visual, first.cumsum(1) - 1, -1)


def take_positions(positions: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """`positions` `[..., batch or 1, seq]` at `column` `[batch, slots]`."""
    positions = positions.expand(*positions.shape[:-2], len(column), -1)
    return positions.gather(-1, column.to(positions.device).expand(*positions.shape[:-2], -1, -1))


class PrefillLayers:
    """Hooks of one prefill with visual tokens."""

    def __init__(self, session: Session, stages: list[PlannedStage], positions: torch.Tensor, gapped: bool) -> None:
        self.session, self.stages, self.positions, self.gapped = session, stages, positions, gapped
        kernel = session.view.language_model.config._attn_implementation
        gaps = gapped or any(not stage.renumber for stage in stages)
        if session.view.needs_positions and gaps and kernel not in ("eager", "sdpa"):
            raise UnsupportedModel(
                f"the attention of {session.view.family.title}'s decoder hands position_ids to its kernel, and "
                f"attn_implementation={kernel!r} may take gaps in them for packed sequences; use positions='renumber', "
                "or load the model with 'sdpa' or 'eager'"
            )
        self.mask: Any = None  # the model's own, of the first layer
        self.inputs: dict[str, LayerInputs] | None = None  # after a cut, by kind of layer
        self.tapped: dict[int, LayerTap] = {}
        self.calls: dict[int, Call] = {}
        self.over = False
        self.watched = {i for stage in stages for i in stage.strategy.watches(session.view.depth)}

    def capture(self) -> Capture:
        """Sees the attention of the layers before stages; to be entered while the decoder runs."""
        before = {stage.layer - 1 for stage in self.stages if not stage.strategy.keeps_all(stage.index)}
        return Capture(
            {i: self.session.view.layers[i] for i in before}, self.calls.__setitem__, self.session.self_check
        )

    def needed(self, depth: int) -> list[int]:
        """Layers that must be hooked: the first (it brings the cache), taps, and all from the first cut on."""
        layers = {0} | {stage.layer - 1 for stage in self.stages} | self.watched
        first = min((stage.layer for stage in self.stages), default=depth)
        if self.session.record is not None:
            first = min([first, *(span.first for span in self.session.record.spans[1:])])
        return sorted(layers | set(range(0 if self.gapped else first, depth)))

    def before(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        session = self.session
        session.use_cache(cache_in(kwargs))
        hidden = args[0] if args else kwargs["hidden_states"]
        if index == 0:
            self.mask = kwargs["attention_mask"]
        if session.record is not None and index in {span.first for span in session.record.spans[1:]}:
            self.inputs = {}
        hidden = self._run_stages(index, hidden, (args[1:], kwargs))
        if index in self.watched:
            session.watch(index, hidden)
        kwargs = self._arguments(index, hidden, kwargs)
        if any(stage.layer == index + 1 for stage in self.stages):
            self.tapped = {index: self._taken(index, hidden, kwargs["position_embeddings"])}
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _arguments(self, index: int, hidden: torch.Tensor, kwargs: dict) -> dict:
        """What a layer is given beside `hidden`, the tokens that are left."""
        if self.inputs is None and not self.gapped:
            return kwargs
        positions = None
        if self.session.view.needs_positions:
            positions = kwargs["position_ids"] if self.inputs is None else self._positions(index)
        if self.inputs is not None:
            inputs = self._inputs(index, hidden, kwargs["position_embeddings"])
            kwargs = {**kwargs, "attention_mask": inputs.mask, "position_embeddings": inputs.rotary}
        return {**kwargs, "position_ids": positions}

    def _positions(self, index: int) -> torch.Tensor:
        """Positions of what is left, `[batch, slots]`."""
        row = self.session.row
        now = take_positions(self.positions, row.places)
        closed = self.session.lowered(index, row.closed)
        return now if closed is None else now - closed.to(now.device)

    def after(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Ahead of the final norm: stages after the last layer, which cut nothing but the caches."""
        if not self.over:  # a strategy may call the norm itself
            self.over = True
            self._run_stages(self.session.view.depth, args[0] if args else kwargs["hidden_states"], None)

    def _run_stages(self, index: int, hidden: torch.Tensor, given: tuple[tuple, dict] | None) -> torch.Tensor:
        """What is left of `hidden` after all stages before a layer; `given` is None after the last layer."""
        session, stages = self.session, [stage for stage in self.stages if stage.layer == index]
        for number, stage in enumerate(stages):
            taps = {i: tap for i, tap in self.tapped.items() if i == index - 1}
            if given is not None:
                taps[index] = self._coming(index, hidden, *given)
            cut = session.run_stage(stage, hidden, taps)
            if cut is not None:
                hidden = gather_tokens(cut.hidden, cut.order)
                if number + 1 < len(stages):
                    self.tapped = {i: tap.cut(cut.order) for i, tap in self.tapped.items()}
                session.after_cut(index, stage.strategy.past)
                session.uninjected = None
                self.inputs = {}
        if stages:
            self.tapped = {}
            self.calls.clear()
        session.uninjected = None
        return hidden

    def _inputs(self, index: int, hidden: torch.Tensor, given: tuple) -> LayerInputs:
        """Mask and rotary embedding of a layer; made once for all layers of a kind."""
        assert self.inputs is not None
        session, kind = self.session, self.session.view.layer_kind(index)
        if kind not in self.inputs:
            row = session.row
            mask = session.mask(index, row)
            made = causal_mask(session.view, hidden, mask, session.cache, index, session.blocks_of(row))
            self.inputs[kind] = LayerInputs(made, self._rotary(index, hidden, given))
        return self.inputs[kind]

    def _rotary(self, index: int, hidden: torch.Tensor, given: tuple) -> tuple:
        """The layer's rotary embedding at the present row; `given` is the model's own, at the row of the entry."""
        session = self.session
        if self.inputs is None:
            return given
        if (made := self.inputs.get(session.view.layer_kind(index))) is not None:
            return made.rotary
        row = session.row
        closed = session.lowered(index, row.closed)
        if closed is not None:
            now = take_positions(self.positions, row.places)
            return session.view.rotate(hidden, now - closed.to(now.device), index)
        order = session.seen[0].slot_of(session.length).gather(1, row.places).clamp(min=0)
        return tuple(gather_tokens(x, order) for x in given)

    def _check_mask(self) -> None:
        if self.session.blocks is not None:
            check_both_ways(self.session.view, self.mask)

    def _taken(self, index: int, hidden: torch.Tensor, rotary: tuple) -> LayerTap:
        """Of a layer that is about to run, from its own call."""

        def take() -> Call:
            self._check_mask()
            if index not in self.calls:
                raise read_nothing(self.session.view.layers[index])
            return self.calls[index]

        past, rotary = self.session.past[index], tuple(x.detach() for x in rotary)
        return LayerTap(take, hidden.shape[1], past, rotary)

    def _coming(self, index: int, hidden: torch.Tensor, args: tuple, kwargs: dict) -> LayerTap:
        """Of a layer that has yet to run, if it ran on what is left now."""
        session, layer = self.session, self.session.view.layers[index]

        def take() -> Call:
            self._check_mask()
            past = session.past[index]
            call = run_ahead(layer, hidden, args, self._arguments(index, hidden, kwargs), past, session.self_check)
            if call is None:
                raise read_nothing(layer)
            return call

        rotary = tuple(x.detach() for x in self._rotary(index, hidden, kwargs["position_embeddings"]))
        return LayerTap(take, hidden.shape[1], session.past[index], rotary)


class DecodeLayers:
    """Hooks of one forward without new visual tokens, on a cache whose layers hold different tokens."""

    def __init__(
        self, view: ModelView, record: CacheRecord, positions: torch.Tensor, new_mask: torch.Tensor | None
    ) -> None:
        self.view, self.record, self.positions, self.new_mask = view, record, positions, new_mask
        self.inputs: dict[tuple[int, str], LayerInputs] = {}  # by first layer and kind

    def needed(self, depth: int, queries: int) -> list[int]:
        """No layer at all where the model's own arguments are right for every layer: one query and no mask."""
        spans = self.record.spans
        if len(spans) == 1:
            return []
        same_positions = all(span.closed is spans[0].closed for span in spans)
        masked = self.new_mask is not None or any(span.valid is not None for span in spans)
        kernel = self.view.language_model.config._attn_implementation
        maskless = queries == 1 and not masked and (kernel == "sdpa" or kernel.startswith("flash_attention"))
        return [] if same_positions and maskless else list(range(spans[1].first, depth))

    def before(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        span = self.record.span(index)
        place = span.first, self.view.layer_kind(index)
        if place not in self.inputs:
            hidden = args[0] if args else kwargs["hidden_states"]
            mask = record_mask(self.record, index, hidden.shape[1], self.new_mask)
            rotary = kwargs["position_embeddings"]
            if span.closed is not None:
                rotary = self.view.rotate(hidden, self.positions - span.closed.to(self.positions.device), index)
            elif self.record.spans[0].closed is not None:
                rotary = self.view.rotate(hidden, self.positions, index)
            cache = cache_in(kwargs)
            self.inputs[place] = LayerInputs(causal_mask(self.view, hidden, mask, cache, index), rotary)
        inputs = self.inputs[place]
        changes = {"attention_mask": inputs.mask, "position_embeddings": inputs.rotary, "position_ids": None}
        if self.view.needs_positions:
            changes["position_ids"] = self.positions if span.closed is None else self.positions - span.closed
        return args, {**kwargs, **changes}


def record_mask(record: CacheRecord, layer: int, queries: int, new_mask: torch.Tensor | None) -> torch.Tensor | None:
    """2-D mask `[batch, cached + queries]` of a layer of a reduced cache; None = all visible.

    Args:
        new_mask: the forward's own 2-D mask over the whole conversation, dropped tokens included; None = all ones.
    """
    span = record.span(layer)
    if span.valid is None and new_mask is None:
        return None
    later = record.get_seq_length(layer) - span.columns + queries
    like = span.valid if span.valid is not None else new_mask
    assert like is not None
    batch, device = len(like), like.device
    valid = torch.ones(batch, span.columns, dtype=torch.bool, device=device) if span.valid is None else span.valid
    tail = torch.ones(batch, later, dtype=torch.bool, device=device)
    if new_mask is not None:
        tail = new_mask[:, new_mask.shape[1] - later :].to(device, torch.bool)
    return torch.cat([valid, tail], 1)


def hook_layers(layers: Any, needed: list[int], before: Callable, hooks: HookSet) -> None:
    """Call `before(index, args, kwargs)`, which may change both, ahead of each needed layer, once per forward."""
    for index in needed:
        layer = layers[index]
        if "__call__" in vars(GradientCheckpointingLayer) and layer.gradient_checkpointing and layer.training:
            # These releases of transformers recompute a layer together with its hooks; step in before that.
            hooks.override(layer, "_gradient_checkpointing_func", _ahead(index, layer, before))
        else:
            hooks.before(layer, partial(_hook, index, before))


def _hook(index: int, before: Callable, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return before(index, args, kwargs)


def _ahead(index: int, layer: Any, before: Callable) -> Callable:
    checkpoint = layer._gradient_checkpointing_func

    def run(call: partial, *args: Any) -> Any:
        args, kwargs = before(index, args, call.keywords)
        return checkpoint(partial(call.func, *call.args, **kwargs), *args)

    return run
