"""The seam between decoder layers: where hidden states are cut, and where later layers get masks that fit."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seeless.core.attention import LayerTap
from seeless.core.cache import cached_keys
from seeless.core.host import cache_in
from seeless.core.masks import causal_mask
from seeless.core.positions import gather_tokens, take_positions
from seeless.core.session import Session
from seeless.core.stages import PlannedStage, run_stage


@dataclass
class LayerInputs:
    """What a range of layers gets in place of the model's full-length arguments."""

    mask: Any
    rotary: tuple


class PrefillLayers:
    """Hooks of one prefill with visual tokens."""

    def __init__(self, session: Session, stages: list[PlannedStage], positions: torch.Tensor, gapped: bool) -> None:
        self.session, self.stages, self.positions, self.gapped = session, stages, positions, gapped
        self.inputs: dict[str, LayerInputs] | None = None  # after a cut, by kind of layer
        self.tapped: dict[int, tuple[torch.Tensor, tuple]] = {}
        self.over = False
        self.watched = {i for stage in stages for i in stage.strategy.watches(session.view.depth)}

    def needed(self, depth: int) -> list[int]:
        """Layers that must be hooked: the first (it brings the cache), taps, and all from the first cut on."""
        layers = {0} | {stage.layer - 1 for stage in self.stages} | self.watched
        first = min((stage.layer for stage in self.stages), default=depth)
        if (record := self.session.past.record) is not None:
            first = min([first, *(span.first for span in record.spans[1:])])
        return sorted(layers | set(range(0 if self.gapped else first, depth)))

    def before(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        session = self.session
        session.past.made(cache_in(kwargs))
        hidden = args[0] if args else kwargs["hidden_states"]
        given = kwargs["position_embeddings"]
        record = session.past.record
        if record is not None and index in {span.first for span in record.spans[1:]}:
            self.inputs = {}
        hidden = self._run_stages(index, hidden, given)
        if index in self.watched:
            session.watch(index, hidden)
        ahead = any(stage.layer == index + 1 for stage in self.stages)
        self.tapped = {index: (hidden, self._rotary(index, hidden, given))} if ahead else {}
        if self.inputs is not None:
            inputs = self._inputs(index, hidden, given)
            kwargs = {**kwargs, "attention_mask": inputs.mask, "position_embeddings": inputs.rotary}
        if self.inputs is not None or self.gapped:
            kwargs = {**kwargs, "position_ids": None}
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def after(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Ahead of the final norm: stages after the last layer, which cut nothing but the caches."""
        if not self.over:  # a strategy may call the norm itself
            self.over = True
            self._run_stages(self.session.view.depth, args[0] if args else kwargs["hidden_states"], None)

    def _run_stages(self, index: int, hidden: torch.Tensor, given: tuple | None) -> torch.Tensor:
        """What is left of `hidden` after all stages before a layer; `given` is None after the last layer."""
        session = self.session
        for stage in [stage for stage in self.stages if stage.layer == index]:
            taps = {i: self._tap(i, *kept, ran=True) for i, kept in self.tapped.items() if i == index - 1}
            if given is not None:
                taps[index] = self._tap(index, hidden, self._rotary(index, hidden, given), ran=False)
            cut = run_stage(session, stage, hidden, taps)
            hidden = hidden if cut is None else cut.hidden
            if cut is not None and cut.order is not None:
                order = cut.order
                hidden = gather_tokens(hidden, order)
                self.tapped = {
                    i: (gather_tokens(x, order), tuple(gather_tokens(angle, order) for angle in angles))
                    for i, (x, angles) in self.tapped.items()
                }
                session.after_cut(index, stage.strategy.past, cut.dropped)
                session.uninjected = None
                self.inputs = {}
        session.uninjected = None
        if all(stage.layer <= index for stage in self.stages):
            session.release()
        return hidden

    def _inputs(self, index: int, hidden: torch.Tensor, given: tuple) -> LayerInputs:
        """Mask and rotary embedding of a layer; made once for all layers of a kind."""
        assert self.inputs is not None
        session, kind = self.session, self.session.view.layer_kind(index)
        if kind not in self.inputs:
            row = session.row
            mask = session.mask(index, row)
            made = causal_mask(session.view, hidden, mask, session.past.cache, index, session.blocks_of(row))
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
        moved = session.past.moved(index, row.moved)
        if moved is not None:
            now = take_positions(self.positions, row.places)
            return session.view.rotate(hidden, now + moved.to(now.device), index)
        order = session.seen[0].slot_of(session.prompt.length).gather(1, row.places).clamp(min=0)
        return tuple(gather_tokens(x, order) for x in given)

    def _tap(self, index: int, hidden: torch.Tensor, rotary: tuple, ran: bool) -> LayerTap:
        session, past = self.session, self.session.past.columns[index]
        held = past + (session.at(session.held, index).slots if ran else 0)
        cached = cached_keys(session.past.cache, index)
        cached = None if cached is None else cached[:, :, :held].detach()  # a static cache has room for more
        rotary = tuple(x.detach() for x in rotary)
        return LayerTap(session.view, index, hidden.detach(), rotary, cached, past)
