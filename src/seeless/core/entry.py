"""The seam around the language model: where embeddings are cut, and where its output goes back to full length."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache

from seeless.core.cache import CacheRecord, check_cache, record_of
from seeless.core.family import ModelView
from seeless.core.hooks import HookSet
from seeless.core.host import cache_in
from seeless.core.injection import following
from seeless.core.layers import (
    DecodeLayers,
    PrefillLayers,
    hook_layers,
    ready_mask,
    record_mask,
    take_positions,
    token_blocks,
)
from seeless.core.pictures import Kind, Note, Noting, Pictures, find_pictures
from seeless.core.positions import gather_tokens
from seeless.core.reporting import build_report
from seeless.core.second_forward import SecondForward
from seeless.core.session import PlannedStage, Session, tower_reads
from seeless.core.tower import check_tower
from seeless.errors import InputError
from seeless.report import Report
from seeless.strategy import TowerStrategy


@dataclass
class _Running:
    """What one forward of the language model needs afterwards."""

    hooks: HookSet = field(default_factory=HookSet)
    session: Session | None = None
    logical: int = 0


class Reducer:
    """Everything that is attached to one model: hooks on the base model and its language model, and, only while a
    forward needs them, on layers and tower.

    Args:
        on_report: called with the report of every prefill.
    """

    def __init__(self, view: ModelView, stages: list[PlannedStage], on_report: Callable[[Report], None]) -> None:
        self.view, self.stages, self.on_report = view, stages, on_report
        self.tower: TowerStrategy | None = None
        for stage in stages:
            if isinstance(stage.strategy, TowerStrategy) and not stage.strategy.keeps_all(0):
                self.tower = stage.strategy
                check_tower(view, stage.strategy)
        self.self_check = True
        self.hooks = HookSet()
        self.active = False
        self.pictures: Pictures | None = None
        self.padding: torch.Tensor | None = None
        self.types: torch.Tensor | None = None
        self.labels: torch.Tensor | None = None
        self.ids: torch.Tensor | None = None
        self.running: list[_Running] = []

    def attach(self) -> None:
        base, decoder, untraced = self.view.base, self.view.language_model, torch.compiler.disable
        self.hooks.override(decoder, "forward", untraced(decoder.forward))
        noting = Noting(self.view, self.tower, tower_reads(self.stages), self.self_check, self._note)
        kinds: list[Kind] = ["image", "video"] if self.view.takes_videos else ["image"]
        for kind in kinds:
            name = f"get_{kind}_features"
            self.hooks.override(base, name, untraced(noting.wrap(kind, getattr(base, name))))
        if self.view.model is not base:
            self.hooks.before(self.view.model, untraced(self._before_model))
            self.hooks.after(self.view.model, untraced(self._after_model))
        self.hooks.before(base, untraced(self._before_base))
        self.hooks.after(base, untraced(self._after_base))
        self.hooks.before(decoder, untraced(self._before_decoder))
        self.hooks.after(decoder, untraced(self._after_decoder))
        torch.compiler.reset()  # code compiled without the hooks would not run them
        self.active = True

    def detach(self) -> None:
        self.hooks.remove()
        torch.compiler.reset()
        self.active = False

    # The model with its head: what is to be learnt.

    def _before_model(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.labels = _named(module, args, kwargs).get("labels") if module.training else None

    def _after_model(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        self.labels = None

    # The base model: which tokens are visual.

    def _before_base(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = _named(module, args, kwargs)
        self.padding = given.get("attention_mask")
        self.types = given.get("token_type_ids")
        self.ids = given.get("input_ids")
        self.pictures = find_pictures(self.view, given)
        if self.pictures is None and (embeds := given.get("inputs_embeds")) is not None and embeds.shape[1] > 1:
            raise InputError(
                "inputs_embeds without pixel_values do not say which embeddings are visual; "
                "pass input_ids and pixel_values, or remove the handle for text"
            )

    def _note(self, kind: Kind, note: Note) -> None:
        if self.pictures is not None:
            self.pictures.notes[kind] = note, 1

    def _after_base(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        self.pictures = None

    # The language model.

    def _before_decoder(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        running = _Running()
        self.running.append(running)
        cache = cache_in(kwargs)
        record, pictures, self.pictures = record_of(cache), self.pictures, None
        visual = pictures is not None and bool(pictures.visual.any())
        if not visual and record is None:
            return None
        if args:
            raise InputError("the language model was called with positional arguments; call the whole model instead")
        mask, family = kwargs.get("attention_mask"), self.view.family
        if family.bidirectional:  # the base model makes 4-D masks of its own
            mask = self.padding
            kwargs = {**kwargs, "attention_mask": mask} if record is not None and not visual else kwargs
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 2):
            raise InputError(
                "a ready-made 4-D (or flex) attention mask cannot follow tokens that leave; pass the 2-D attention_mask"
            )
        check_cache(cache)
        if record is not None and not record.is_active():
            record.is_active = lambda: self.active
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:
            embeds = self.view.language_model.get_input_embeddings()(kwargs["input_ids"])  # type: ignore[operator]
            kwargs = {**kwargs, "input_ids": None, "inputs_embeds": embeds}
        past = 0 if cache is None else cache.get_seq_length()
        running.logical = past + embeds.shape[1]
        if mask is not None and mask.shape[1] != running.logical:
            raise InputError(
                f"attention_mask has {mask.shape[1]} columns, but the conversation has {running.logical} tokens "
                "(dropped visual tokens count)"
            )
        if self.stages and self.view.window is not None and running.logical >= self.view.window:
            raise InputError(
                f"the conversation has {running.logical} tokens, but some layers of this {family.title} model look "
                f"back only {self.view.window} (sliding_window); dropping tokens would move that window. Shorten the "
                "prompt, or remove the handle"
            )
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = torch.arange(past, running.logical, device=embeds.device)[None]
        if visual:
            assert pictures is not None
            return args, self._prefill(running, kwargs, mask, pictures, positions, record, cache)
        assert record is not None
        return args, self._continue(running, kwargs, positions, record)

    def _prefill(
        self,
        running: _Running,
        kwargs: dict,
        mask: torch.Tensor | None,
        pictures: Pictures,
        positions: torch.Tensor,
        record: CacheRecord | None,
        cache: Cache | None,
    ) -> dict:
        embeds, family = kwargs["inputs_embeds"], self.view.family
        length = embeds.shape[1]
        past_mask = valid = None
        if mask is not None:
            past_mask, valid = mask[:, :-length].bool(), mask[:, -length:].bool()
            past_mask = None if past_mask.all() else past_mask
            valid = None if valid.all() else valid
        if valid is not None and not bool(valid.any(1).all()):
            raise InputError("a row of the batch is all padding")
        self._check_merged(pictures)
        layout = pictures.layout(valid, family.runs)
        before = running.logical - length
        blocks = self._blocks(valid, before, length)
        given = self.labels, self.ids
        session = Session(
            self.view, layout, pictures.vision, valid, embeds, record, cache, past_mask, before, blocks, *given
        )
        session.self_check = self.self_check
        running.session = session
        injected = kwargs.get("deepstack_visual_embeds")
        runs = session.second_runs
        second = SecondForward(self.view, layout, valid, embeds, positions, injected, runs, self.self_check)
        session.prepare(self.stages, second)

        hidden, gapped, changed = embeds, False, record is not None
        for stage in [stage for stage in self.stages if stage.layer == 0]:
            cut = session.run_stage(stage, hidden, {})
            if cut is not None:
                hidden = gather_tokens(cut.hidden, cut.order)
                session.after_cut(0, "keep")
                gapped |= not stage.renumber
                changed = True
        if changed:
            row = session.row
            now = take_positions(positions, row.column)
            if (closed := session.lowered(0, row.closed)) is not None:
                now = now - closed.to(now.device)
            new_mask = session.mask(0, row)
            if new_mask is None and (mask is not None or gapped):  # gaps must not be taken for packed sequences
                new_mask = torch.ones(len(hidden), session.past[0] + hidden.shape[1], dtype=torch.long)
            kwargs = {**kwargs, "inputs_embeds": hidden, "position_ids": now}
            kwargs["attention_mask"] = None if new_mask is None else new_mask.to(hidden.device, torch.long)
            if blocks is not None:
                now_blocks = session.blocks_of(session.row)
                kwargs["attention_mask"] = ready_mask(self.view, hidden, kwargs["attention_mask"], cache, now_blocks)
        if family.injector is not None:
            inject = getattr(self.view.language_model, family.injector)
            running.hooks.override(self.view.language_model, family.injector, following(session, inject))
        later = [stage for stage in self.stages if stage.layer > 0]
        layers = PrefillLayers(session, later, positions, gapped)
        hook_layers(self.view.layers, layers.needed(self.view.depth), layers.before, running.hooks)
        if later:
            running.hooks.enter(layers.capture())
        if any(stage.layer == self.view.depth for stage in later):
            running.hooks.before(self.view.final_norm, layers.after)
        return kwargs

    def _check_merged(self, pictures: Pictures) -> None:
        for tap in pictures.vision.taps:
            made = None if tap.merged is None else tap.merged.strategy
            if made != self.tower:
                raise InputError(
                    f"these image features were made with {made or 'nothing'} inside the vision tower, but this handle "
                    f"has {self.tower or 'nothing'} there; pass pixel_values, or call get_image_features again"
                )

    def _blocks(self, valid: torch.Tensor | None, before: int, length: int) -> torch.Tensor | None:
        """Which tokens see each other both ways, `[batch, seq]`; None if attention is plainly causal."""
        family, types = self.view.family, self.types
        if not family.bidirectional or types is None or (family.prefix and before > 0):
            return None
        blocks = token_blocks(types[:, -length:], family.prefix)
        return blocks if valid is None else torch.where(valid.to(blocks.device), blocks, -1)

    def _continue(self, running: _Running, kwargs: dict, positions: torch.Tensor, record: CacheRecord) -> dict:
        queries, device = kwargs["inputs_embeds"].shape[1], kwargs["inputs_embeds"].device
        mask = kwargs.get("attention_mask")
        layers = DecodeLayers(self.view, record, positions, mask)
        hook_layers(self.view.layers, layers.needed(self.view.depth, queries), layers.before, running.hooks)
        first = record_mask(record, 0, queries, mask)
        closed = record.spans[0].closed
        now = positions if closed is None else positions - closed.to(positions.device)
        kwargs = {**kwargs, "position_ids": now}
        kwargs["attention_mask"] = None if first is None else first.to(device, torch.long)
        return kwargs

    def _after_decoder(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        running = self.running.pop()
        running.hooks.remove()
        session = running.session
        if output is None or session is None:
            return None
        cache = cache_in(output)
        session.use_cache(cache)
        spans = session.spans()
        reduced = session.record is not None or len(session.seen) > 1 or session.row is not session.whole
        if cache is not None and reduced:
            removed = running.logical - spans[0].columns
            CacheRecord(cache, spans, removed, lambda: self.active).install()
        self.on_report(build_report(session, spans, self.view, cache is not None))
        session.vision.release()
        return self._restored(output, session)

    def _restored(self, output: Any, session: Session) -> Any:
        """Hidden states back to full length; attention maps stay as the kernel made them."""

        def back(hidden: torch.Tensor, layer: int) -> torch.Tensor:
            row = session.at(session.seen, layer)
            return hidden if row is session.whole else row.restore(hidden, session.length)

        last = self.view.depth - 1
        output.last_hidden_state = back(output.last_hidden_state, last)
        if output.get("hidden_states") is not None:
            states = output.hidden_states
            restored = [back(x, max(0, i - 1)) for i, x in enumerate(states[:-1])]
            output.hidden_states = (*restored, output.last_hidden_state)
        return output


def _named(module: nn.Module, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a forward by name."""
    names = list(inspect.signature(module.forward).parameters) if args else []
    return {**dict(zip(names, args, strict=False)), **kwargs}
