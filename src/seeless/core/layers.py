"""The seam between decoder layers: where hidden states are cut, and where later layers get masks that fit."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from seeless.core.ahead import Ahead, run_ahead
from seeless.core.attention import LayerTap, Rows, read_nothing
from seeless.core.cache import is_static
from seeless.core.capture import Call, Capture
from seeless.core.checks import layers_of
from seeless.core.host import CACHE_NAMES, cache_in
from seeless.core.masks import check_both_ways
from seeless.core.positions import gather_tokens, take_positions, take_tokens
from seeless.core.rotary import Rotary, changed, cos_and_sin
from seeless.core.session import Session
from seeless.core.stages import PlannedStage, run_stage
from seeless.errors import UnsupportedModel


@dataclass
class LayerInputs:
    """What a range of layers gets in place of the model's full-length arguments."""

    mask: Any
    rotary: Rotary


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
        self.inputs: dict[str, LayerInputs] | None = None  # after a cut, by kind of layer
        self.tapped: dict[int, LayerTap] = {}  # of layers that have run, until the last stage that may read them
        self.calls: dict[int, Call] = {}
        self.over = self.deciding = False
        self.watched = {i for stage in stages for i in layers_of(stage.strategy, "watches", session.view.depth)}
        asking = {stage.layer for stage in stages if not stage.strategy.keeps_all(stage.index)}
        self.last_read: dict[int, int] = {}  # by layer, the stage up to which its attention may be read
        for layer in sorted(asking):
            if (read := session.view.nearest_attention(layer - 1)) is not None:
                self.last_read[read] = layer

    def capture(self) -> Capture:
        """Sees the attention of the layers before stages; to be entered while the decoder runs."""
        view = self.session.view
        return Capture({i: view.layers[i] for i in self.last_read}, self.calls.__setitem__, self.session.self_check)

    def needed(self, depth: int) -> list[int]:
        """Layers that must be hooked: the first (it brings the cache), taps, and all from the first cut on."""
        layers = {0, *self.last_read} | self.watched
        first = min((stage.layer for stage in self.stages), default=depth)
        if (record := self.session.past.record) is not None:
            first = min([first, *(span.first for span in record.spans[1:])])
        if (injection := self.session.injection) is not None:
            layers |= injection.before.keys()
        return sorted(layers | set(range(0 if self.gapped else first, depth)))

    def before(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        session = self.session
        session.past.made(cache_in(kwargs))
        hidden = args[0] if args else kwargs["hidden_states"]
        record = session.past.record
        if record is not None and index in {span.first for span in record.spans[1:]}:
            self.inputs = {}
        if session.injection is not None:
            hidden = session.injection.add(session, index, hidden)
        hidden = self._run_stages(index, hidden, (args[1:], kwargs))
        if index in self.watched:
            session.watch(index, hidden)
        args, kwargs = self._own_part(index, args, self._arguments(index, hidden, kwargs))
        if index in self.last_read:
            self.tapped[index] = self._taken(index, hidden, args[1:], kwargs)
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

    def _own_part(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """A layer's arguments; what it takes of its own for every token is cut to what is left."""
        session, given = self.session, self.session.view.family.layer_inputs
        if given is None or session.row is session.seen[0]:
            return args, kwargs
        order = session.seen[0].slot_of(session.prompt.length).gather(1, session.row.column).clamp(min=0)
        if (own := kwargs.get(given[1])) is not None:
            return args, {**kwargs, given[1]: take_tokens(own, order)}
        at = list(inspect.signature(session.view.layers[index].forward).parameters).index(given[1])
        if at >= len(args) or args[at] is None:
            return args, kwargs
        return (*args[:at], take_tokens(args[at], order), *args[at + 1 :]), kwargs

    def _positions(self, index: int) -> torch.Tensor:
        """Positions of what is left, `[batch, slots]`."""
        row = self.session.row
        now = take_positions(self.positions, row.places)
        moved = self.session.past.moved(index, row.moved)
        return now if moved is None else now + moved.to(now.device)

    def after(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Ahead of the final norm: stages after the last layer, which cut nothing but the caches."""
        if not self.over and not self.deciding:  # a strategy may call the norm itself
            self.over = True
            self._run_stages(self.session.view.depth, args[0] if args else kwargs["hidden_states"], None)

    def _run_stages(self, index: int, hidden: torch.Tensor, given: tuple[tuple, dict] | None) -> torch.Tensor:
        """What is left of `hidden` after all stages before a layer; `given` is None after the last layer."""
        session, stages = self.session, [stage for stage in self.stages if stage.layer == index]
        for number, stage in enumerate(stages):
            taps = self._taps(index)
            if given is not None and session.view.attends(index):
                taps[index] = self._coming(index, hidden, *given)
            self.deciding = True
            cut = run_stage(session, stage, hidden, taps)
            self.deciding = False
            hidden = hidden if cut is None else cut.hidden
            if cut is not None and cut.order is not None:
                hidden = gather_tokens(hidden, cut.order)
                more = number + 1 < len(stages)
                self.tapped = {i: t.cut(cut.order) for i, t in self.tapped.items() if more or self.last_read[i] > index}
                self._keep_keys(stage)
                session.after_cut(index, stage.strategy.past, cut.dropped)
                session.uninjected = None
                self.inputs = {}
        for read in [read for read, last in self.last_read.items() if last == index]:
            self.tapped.pop(read, None)
            self.calls.pop(read, None)
        session.uninjected = None
        if all(stage.layer <= index for stage in self.stages):
            session.release()
        return hidden

    def _keep_keys(self, stage: PlannedStage) -> None:
        """Copy the keys that later stages read, before a static cache, whose own they are, is trimmed in its place."""
        if stage.strategy.past == "trim" and is_static(self.session.past.cache):
            for read in self.tapped.keys() & self.calls.keys():
                self.calls[read].key = self.calls[read].key.clone()

    def _taps(self, index: int) -> dict[int, LayerTap]:
        """Layers that have run, by those next to a stage before `index` that they stand for."""
        view = self.session.view
        nearest = {layer: view.nearest_attention(layer) for layer in (index - 1, index) if layer < view.depth}
        return {layer: self.tapped[read] for layer, read in nearest.items() if read in self.tapped}

    def _inputs(self, index: int, hidden: torch.Tensor, given: Rotary) -> LayerInputs:
        """Mask and rotary embedding of a layer; made once for all layers of a kind."""
        assert self.inputs is not None
        session, kind = self.session, self.session.view.layer_kind(index)
        if kind not in self.inputs:
            mask = session.layer_mask(index, hidden, session.row)
            self.inputs[kind] = LayerInputs(mask, self._rotary(index, hidden, given))
        return self.inputs[kind]

    def _rotary(self, index: int, hidden: torch.Tensor, given: Rotary) -> Rotary:
        """The layer's rotary embedding at the present row; `given` is the model's own, at the row of the entry."""
        session = self.session
        if self.inputs is None or not session.view.attends(index):  # recurrent layers have no use for it
            return given
        if (made := self.inputs.get(session.view.layer_kind(index))) is not None:
            return made.rotary
        row = session.row
        moved = session.past.moved(index, row.moved)
        if moved is not None:
            now = take_positions(self.positions, row.places)
            return session.view.rotate(hidden, now + moved.to(now.device), index)
        order = session.seen[0].slot_of(session.prompt.length).gather(1, row.places).clamp(min=0)
        return changed(given, lambda x: gather_tokens(x, order))

    def _check_mask(self, index: int, mask: Any) -> None:
        if self.session.blocks is not None and self.session.view.sees_both_ways(index):
            check_both_ways(self.session.view, mask)

    def _turns(self, index: int, hidden: torch.Tensor, args: tuple, kwargs: dict) -> bool:
        """Whether a layer turns queries and keys by position; some layers of some decoders do not. Tried once."""
        view = self.session.view

        def query(number: float) -> torch.Tensor:
            """Of some token, with this as all cosines and sines."""
            rotary = tuple(torch.full_like(x[:1, :1], number) for x in kwargs["position_embeddings"])
            given = {**kwargs, "attention_mask": None, "position_embeddings": rotary}
            given |= {name: None for name in CACHE_NAMES if name in given}
            if (positions := given.get("position_ids")) is not None:
                given["position_ids"] = positions[..., :1, :1]
            some = torch.arange(hidden.shape[-1], device=hidden.device).sin().to(hidden.dtype)[None, None]
            call = run_ahead(view.layers[index], some, args, given, 0, False)
            if call is None:
                raise read_nothing(view.layers[index])
            return call.query

        if index not in view.turning:
            view.turning[index] = not torch.equal(query(0.0), query(1.0))
        return view.turning[index]

    def _taken(self, index: int, hidden: torch.Tensor, args: tuple, kwargs: dict) -> LayerTap:
        """Of a layer that is about to run, from its own call."""

        def take(asked: Rows | None) -> Call:
            self._check_mask(index, kwargs["attention_mask"])
            if index not in self.calls:
                raise read_nothing(self.session.view.layers[index])
            return self.calls[index]

        past = self.session.past.held(index)  # before the layer runs: then its cache holds more
        rotary = cos_and_sin(kwargs["position_embeddings"])
        return LayerTap(index, take, hidden.shape[1], past, rotary, partial(self._turns, index, hidden, args, kwargs))

    def _coming(self, index: int, hidden: torch.Tensor, args: tuple, kwargs: dict) -> LayerTap:
        """Of a layer that has yet to run, if it ran on what is left now."""
        session, layer = self.session, self.session.view.layers[index]

        def arguments() -> tuple[tuple, dict]:
            own, given = self._own_part(index, (hidden, *args), self._arguments(index, hidden, kwargs))
            self._check_mask(index, given["attention_mask"])
            return own[1:], given

        past = session.past.held(index)
        take = Ahead(layer, hidden, arguments, past, session.self_check)
        rotary = cos_and_sin(self._rotary(index, hidden, kwargs["position_embeddings"]))
        return LayerTap(index, take, hidden.shape[1], past, rotary, partial(self._turns, index, hidden, args, kwargs))
