"""The seam around the language model: where embeddings are cut, and where its output goes back to full length."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache

from seeless.core.cache import CacheRecord, check_cache, record_of
from seeless.core.family import ModelView
from seeless.core.frame import Frame, Running, refuse_tracing
from seeless.core.hooks import HookSet, is_bare, without_seams
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
from seeless.core.session import PlannedStage, Session
from seeless.core.tower import check_tower
from seeless.errors import InputError, UnsupportedModel
from seeless.report import Report
from seeless.strategy import TowerStrategy

PASSED_BY = (
    "the forward of {part} no longer goes through seeless: something took the place of this module or of its forward "
    "while the handle was active (device hooks put on or taken off, another patch); remove the handle, and apply again"
)


class Reducer:
    """Everything that is attached to one model: seams on the model, its base and its language model, and, only while a
    forward needs them, on layers and tower.

    Args:
        on_report: called with the report of every prefill.
        self_check: whether the first prefills compare what is read here with what the model does.
    """

    def __init__(
        self,
        view: ModelView,
        stages: list[PlannedStage],
        on_report: Callable[[Report], None],
        self_check: bool = True,
    ) -> None:
        self.view, self.stages, self.on_report, self.self_check = view, stages, on_report, self_check
        self.tower: TowerStrategy | None = None
        for stage in stages:
            if isinstance(stage.strategy, TowerStrategy) and not stage.strategy.keeps_all(0):
                self.tower = stage.strategy
                check_tower(view, stage.strategy)
        self.hooks = HookSet(everywhere=True)
        self.active = False
        self.running = Running()

    def attach(self) -> None:
        HookSet.sweep()
        model, base, decoder = self.view.model, self.view.base, self.view.language_model
        noting = Noting(self.view, self.tower, self._note)
        kinds: list[Kind] = ["image", "video"] if self.view.takes_videos else ["image"]
        try:
            for kind in kinds:
                self.hooks.around(base, f"get_{kind}_features", partial(self._run_features, noting, kind))
            if model is not base:
                self.hooks.around(model, "forward", self._run_model)
            self.hooks.around(base, "forward", self._run_base)
            self.hooks.around(decoder, "forward", self._run_decoder)
            for module in {id(module): module for module in (model, base, decoder)}.values():
                self.hooks.around(module, "__reduce_ex__", without_seams)
                self.hooks.around(module, "_replicate_for_data_parallel", _refuse_replicas)
        except BaseException:
            self.hooks.remove()
            raise
        self.active = True

    def detach(self) -> None:
        self.active = False
        self.hooks.remove()
        HookSet.sweep()

    # The model with its head: what is to be learnt.

    def _run_model(self, below: Callable, args: tuple, kwargs: dict) -> Any:
        model, outer = self.view.model, self.running.frame
        labels = _named(model, args, kwargs).get("labels") if model.training else None
        frame = self.running.frame = _new_frame(labels)
        try:
            output = below(*args, **kwargs)
        finally:
            frame.over = frame.hooks.over = True  # no call before these: an interrupt could come in between
            self.running.frame = outer
            frame.hooks.remove()
            HookSet.sweep()
        if frame.given is None:
            raise UnsupportedModel(PASSED_BY.format(part=type(self.view.base).__name__))
        return output

    # The base model: which tokens are visual.

    def _run_base(self, below: Callable, args: tuple, kwargs: dict) -> Any:
        outer, frame = self.running.frame, self.running.current()
        if frame is None or frame.given is not None:
            frame = _new_frame()
        else:
            kwargs = _named_output(self.view.base, kwargs)
        frame.given = given = _named(self.view.base, args, kwargs)
        frame.pictures = find_pictures(self.view, given)
        if frame.pictures is not None and (part := self.view.replaced()) is not None:
            raise UnsupportedModel(
                f"{part} is another module than it was when seeless.apply saw this model; remove the handle, and apply "
                "again"
            )
        if frame.pictures is None and (embeds := given.get("inputs_embeds")) is not None and embeds.shape[1] > 1:
            raise InputError(
                "inputs_embeds without pixel_values do not say which embeddings are visual; "
                "pass input_ids and pixel_values, or remove the handle for text"
            )
        self.running.frame = frame
        try:
            output = below(*args, **kwargs)
        finally:
            frame.over = frame.hooks.over = True
            self.running.frame = outer
            frame.pictures = None
            frame.hooks.remove()
            HookSet.sweep()
        if not frame.entered:
            raise UnsupportedModel(PASSED_BY.format(part=type(self.view.language_model).__name__))
        return output

    def _run_features(self, noting: Noting, kind: Kind, below: Callable, args: tuple, kwargs: dict) -> Any:
        if self.running.current() is None and is_bare(self.view.base, "forward"):
            raise UnsupportedModel(PASSED_BY.format(part=type(self.view.base).__name__))
        return noting.run(kind, below, args, kwargs)

    def _note(self, kind: Kind, note: Note) -> None:
        frame = self.running.current()
        if frame is not None and frame.pictures is not None:
            frame.pictures.notes[kind] = note, 1

    # The language model.

    def _run_decoder(self, below: Callable, args: tuple, kwargs: dict) -> Any:
        frame = self.running.current()
        if frame is None:
            frame = _new_frame()
        elif frame.entered:  # a second prompt, run by a strategy
            return below(*args, **kwargs)
        else:
            kwargs = _named_output(self.view.language_model, kwargs)
        frame.entered = True
        pictures, frame.pictures = frame.pictures, None
        record = record_of(cache_in(kwargs))
        if pictures is not None and not bool(pictures.visual.any()):
            pictures = None
        if pictures is None and record is None:
            return below(*args, **kwargs)
        try:
            kwargs = self._enter(frame, args, kwargs, pictures, record)
            return self._leave(frame, below(**kwargs))
        finally:
            frame.hooks.over = True
            frame.session = None
            frame.hooks.remove()

    def _enter(
        self, frame: Frame, args: tuple, kwargs: dict, pictures: Pictures | None, record: CacheRecord | None
    ) -> dict:
        """The language model's arguments, made to fit what is left of the tokens."""
        cache, visual = cache_in(kwargs), pictures is not None
        if args:
            raise InputError("the language model was called with positional arguments; call the whole model instead")
        mask, family = kwargs.get("attention_mask"), self.view.family
        if family.bidirectional:  # the base model makes 4-D masks of its own
            mask = frame.argument("attention_mask")
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
        frame.logical = past + embeds.shape[1]
        if mask is not None and mask.shape[1] != frame.logical:
            raise InputError(
                f"attention_mask has {mask.shape[1]} columns, but the conversation has {frame.logical} tokens "
                "(dropped visual tokens count)"
            )
        if self.stages and self.view.window is not None and frame.logical >= self.view.window:
            raise InputError(
                f"the conversation has {frame.logical} tokens, but some layers of this {family.title} model look "
                f"back only {self.view.window} (sliding_window); dropping tokens would move that window. Shorten the "
                "prompt, or remove the handle"
            )
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = torch.arange(past, frame.logical, device=embeds.device)[None]
        if pictures is not None:
            return self._prefill(frame, kwargs, mask, pictures, positions, record, cache)
        assert record is not None
        return self._continue(frame, kwargs, positions, record)

    def _prefill(
        self,
        frame: Frame,
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
        before = frame.logical - length
        blocks = self._blocks(frame.argument("token_type_ids"), valid, before, length)
        given = frame.labels, frame.argument("input_ids")
        session = Session(
            self.view, layout, pictures.vision, valid, embeds, record, cache, past_mask, before, blocks, *given
        )
        frame.session = session
        injected = kwargs.get("deepstack_visual_embeds")
        runs = session.second_runs
        session.prepare(self.stages, SecondForward(self.view, layout, valid, embeds, positions, injected, runs))

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
            frame.hooks.override(self.view.language_model, family.injector, following(session, inject))
        later = [stage for stage in self.stages if stage.layer > 0]
        layers = PrefillLayers(session, later, positions, gapped)
        hook_layers(self.view.layers, layers.needed(self.view.depth), layers.before, frame.hooks)
        if any(stage.layer == self.view.depth for stage in later):
            frame.hooks.before(self.view.final_norm, layers.after)
        return kwargs

    def _check_merged(self, pictures: Pictures) -> None:
        for tap in pictures.vision.taps:
            made = None if tap.merged is None else tap.merged.strategy
            if made != self.tower:
                raise InputError(
                    f"these image features were made with {made or 'nothing'} inside the vision tower, but this handle "
                    f"has {self.tower or 'nothing'} there; pass pixel_values, or call get_image_features again"
                )

    def _blocks(
        self, types: torch.Tensor | None, valid: torch.Tensor | None, before: int, length: int
    ) -> torch.Tensor | None:
        """Which tokens see each other both ways, `[batch, seq]`; None if attention is plainly causal."""
        family = self.view.family
        if not family.bidirectional or types is None or (family.prefix and before > 0):
            return None
        blocks = token_blocks(types[:, -length:], family.prefix)
        return blocks if valid is None else torch.where(valid.to(blocks.device), blocks, -1)

    def _continue(self, frame: Frame, kwargs: dict, positions: torch.Tensor, record: CacheRecord) -> dict:
        queries, device = kwargs["inputs_embeds"].shape[1], kwargs["inputs_embeds"].device
        mask = kwargs.get("attention_mask")
        layers = DecodeLayers(self.view, record, positions, mask)
        hook_layers(self.view.layers, layers.needed(self.view.depth, queries), layers.before, frame.hooks)
        first = record_mask(record, 0, queries, mask)
        closed = record.spans[0].closed
        now = positions if closed is None else positions - closed.to(positions.device)
        kwargs = {**kwargs, "position_ids": now}
        kwargs["attention_mask"] = None if first is None else first.to(device, torch.long)
        return kwargs

    def _leave(self, frame: Frame, output: Any) -> Any:
        session = frame.session
        if session is None:
            return output
        cache = cache_in(output)
        session.use_cache(cache)
        spans = session.spans()
        reduced = session.record is not None or len(session.seen) > 1 or session.row is not session.whole
        if cache is not None and reduced:
            removed = frame.logical - spans[0].columns
            CacheRecord(cache, spans, removed, lambda: self.active).install()
        self.on_report(build_report(session, spans, self.view, cache is not None))
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


def _new_frame(labels: torch.Tensor | None = None) -> Frame:
    refuse_tracing()
    HookSet.sweep()
    return Frame(labels)


def _refuse_replicas(below: Callable, args: tuple, kwargs: dict) -> Any:
    raise UnsupportedModel(
        "DataParallel copies the model for every forward, and copies carry no handle; use DistributedDataParallel or "
        "one device, or remove the handle"
    )


def _named_output(module: Any, kwargs: dict) -> dict:
    """Arguments with which the module gives its output by name, whatever its config says."""
    return kwargs if getattr(module.config, "return_dict", True) else {**kwargs, "return_dict": True}


def _named(module: nn.Module, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a forward by name."""
    names = list(inspect.signature(module.forward).parameters) if args else []
    return {**dict(zip(names, args, strict=False)), **kwargs}
