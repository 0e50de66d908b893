"""The seam around the language model: where embeddings are cut, and where its output goes back to full length."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from seeless.core.cache import CacheRecord, Keeper, cached_keys, cached_length, check_cache, record_of
from seeless.core.capture import forget
from seeless.core.choosing import check_readable, find_reader, going_on
from seeless.core.chunks import in_chunks, prefill_at_once
from seeless.core.family import Kind, ModelView
from seeless.core.frame import PASSED_BY, Frame, Running, named, named_output, new_frame, refuse_replicas
from seeless.core.generating import apart, drafted, note_encoding, note_prompt, with_plain_mask
from seeless.core.hooks import HookSet, hook_layers, is_bare, without_seams
from seeless.core.host import ENCODING, PREFILL, all_logits, cache_in, mask_form
from seeless.core.injection import take_injected
from seeless.core.layers import PrefillLayers
from seeless.core.masks import check_made, is_plain, prompt_blocks
from seeless.core.noting import Noting, acting_inside, check_merged
from seeless.core.past import Past
from seeless.core.pictures import Note, Pictures, find_pictures
from seeless.core.positions import gather_tokens, take_positions, take_tokens
from seeless.core.prompt import Prompt, PromptLength, read_prompt
from seeless.core.recurrent import check_continued
from seeless.core.reporting import build_report
from seeless.core.second_forward import SecondForward
from seeless.core.self_check import check_cache_is_known, check_columns
from seeless.core.session import Session
from seeless.core.shown import count_hidden
from seeless.core.sizes import dimensions
from seeless.core.stages import PlannedStage, prepare, run_stage, tower_looks, tower_reads
from seeless.core.stepping import base_steps, decoder_steps, even_step, run_decoder, run_step
from seeless.core.tower_looks import describe_tower
from seeless.errors import InputError, UnsupportedModel
from seeless.report import Report
from seeless.strategy import Strategy


class Reducer:
    """Everything that is attached to one model: seams on the model, its base and its language model, and, only while a
    forward needs them, on layers and tower.

    Args:
        on_report: called with the report of every prefill.
        self_check: whether what is read here is compared with what the model does.
        prompt_length: columns of the input that belong to the prompt, where an answer follows in the same forward.
    """

    def __init__(
        self,
        view: ModelView,
        stages: list[PlannedStage],
        on_report: Callable[[Report], None],
        self_check: bool = True,
        prompt_length: PromptLength | None = None,
    ) -> None:
        self.view, self.stages, self.on_report, self.self_check = view, stages, on_report, self_check
        self.tower = acting_inside(view, stages)
        for kind in view.kinds:
            tower_looks(stages, describe_tower(view, kind))
        self.reader = find_reader(view, stages)
        self.size = dimensions(view)
        self.hooks = HookSet(everywhere=True)
        self.active = self.masks_checked = False
        self.running = Running()
        self.prompt_length = prompt_length

    def attach(self) -> None:
        HookSet.sweep()
        model, base, decoder = self.view.model, self.view.base, self.view.language_model
        looks = partial(tower_looks, self.stages)
        noting = Noting(self.view, self.tower, tower_reads(self.stages), looks, self.self_check, self._note)
        try:
            for kind in ("image",) if self.view.videos_as_images else self.view.kinds:
                self.hooks.around(base, f"get_{kind}_features", partial(self._run_features, noting, kind))
            if model is not base:
                self.hooks.around(model, "forward", self._run_model)
            if hasattr(type(model), "generate"):
                self.hooks.around(model, "generate", partial(note_prompt, self.running))
                self.hooks.around(model, ENCODING, partial(note_encoding, self.running))
                self.hooks.around(model, PREFILL, partial(prefill_at_once, self.running, self.view.family, self.stages))
                self.hooks.around(model, "prepare_inputs_for_generation", self._prepare_inputs)
            self.hooks.around(base, "forward", self._run_base)
            self.hooks.around(decoder, "forward", self._run_decoder)
            for module in {id(module): module for module in (model, base, decoder)}.values():
                self.hooks.around(module, "__reduce_ex__", without_seams)
                self.hooks.around(module, "_replicate_for_data_parallel", refuse_replicas)
        except BaseException:
            self.hooks.remove()
            raise
        self.active = True

    def detach(self) -> None:
        self.active = False
        self.hooks.remove()
        HookSet.sweep()
        self._begin()

    def _prepare_inputs(self, below: Callable, args: tuple, kwargs: dict) -> Any:
        self._adopt(cache_in(kwargs))
        return with_plain_mask(below, args, kwargs)

    def _adopt(self, cache: Any) -> CacheRecord | None:
        """The record of a reduced cache, which this handle keeps if no other does: one that was loaded from a file."""
        record = record_of(cache)
        if record is not None and not record.keeper.active:
            record.keeper = Keeper(self)
        return record

    def _begin(self) -> None:
        if self.running.current() is None:
            forget()

    # The model with its head: what is to be learnt.

    def _run_model(self, below: Callable, args: tuple, kwargs: dict) -> Any:
        alone = not args and self.running.frame is None and self.reader is None
        if alone and (step := even_step(self.view, kwargs)) is not None:
            return run_step(self.view, self.running, step, below, kwargs)
        given = named(below, args, kwargs)
        drafts = drafted(given, self.running.prompt)
        if drafts and find_pictures(given) is not None:
            return apart(lambda **part: self._run_whole(below, (), part, None), given, drafts)
        return self._run_whole(below, args, kwargs, given.get("labels"))

    def _run_whole(self, below: Callable, args: tuple, kwargs: dict, labels: torch.Tensor | None) -> Any:
        self._begin()
        outer = self.running.frame
        frame = self.running.frame = new_frame(labels)
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
        if self.running.step is not None and base_steps(self.running, self.running.step, args, kwargs):
            return below(*args, **kwargs)
        self._begin()
        outer, frame = self.running.frame, self.running.current()
        if frame is None or frame.given is not None:
            frame = new_frame()
        else:
            kwargs = named_output(self.view.base, kwargs)
        frame.given = given = named(self.view.base.forward, args, kwargs)
        self._adopt(cache_in(given))
        frame.pictures = find_pictures(given, self.view)
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
        if not noting.here.busy:
            self._begin()
        if (frame := self.running.current()) is None and is_bare(self.view.base, "forward"):
            raise UnsupportedModel(PASSED_BY.format(part=type(self.view.base).__name__))
        own = kind if frame is None else self.view.encoded_kind(kind, args, kwargs, frame.given or {})
        return noting.run(own, below, args, kwargs, inside=frame is not None or self.running.encoding)

    def _note(self, kind: Kind, note: Note) -> None:
        frame = self.running.current()
        if frame is not None and frame.pictures is not None:
            frame.pictures.notes[kind] = note, 1

    # The language model.

    def _run_decoder(self, below: Callable, args: tuple, kwargs: dict) -> Any:
        step = self.running.step
        if step is not None and self.running.frame is None and decoder_steps(step, kwargs):
            return run_decoder(step, below, kwargs)
        frame = self.running.current()
        if frame is None:
            frame = new_frame()
        elif frame.entered:  # a second prompt, run by a strategy
            return below(*args, **kwargs)
        else:
            kwargs = named_output(self.view.language_model, kwargs)
        frame.entered = True
        pictures, frame.pictures = frame.pictures, None
        if self.self_check:
            check_cache_is_known(self.view, kwargs)
        record = self._adopt(cache_in(kwargs))
        if pictures is None and record is None:
            return below(*args, **kwargs)
        if args:
            raise InputError("the language model was called with positional arguments; call the whole model instead")
        try:
            kwargs = self._enter(frame, kwargs, pictures, record)
            with frame.watch:
                if self.running.chunk is None or frame.session is None:
                    output = below(**kwargs)
                else:
                    output = in_chunks(below, kwargs, self.running.chunk, frame.session)
            if record is not None:
                record.since = frame.logical - record.tokens
            return self._leave(frame, output)
        finally:
            frame.hooks.over = True
            frame.session = None
            frame.hooks.remove()

    def _enter(self, frame: Frame, kwargs: dict, pictures: Pictures | None, record: CacheRecord | None) -> dict:
        """The language model's arguments, made to fit what is left of the tokens."""
        mask, made = kwargs.get("attention_mask"), None
        if frame.given is not None and (self.view.both_ways or not is_plain(mask)):  # the base model makes masks
            mask, made = frame.argument("attention_mask"), None if is_plain(mask) else mask
        if not is_plain(mask):
            raise InputError(
                "a ready-made 4-D (or flex) attention mask cannot follow tokens that leave; pass the 2-D attention_mask"
            )
        embeds = kwargs.get("inputs_embeds")
        length = kwargs["input_ids"].shape[1] if embeds is None else embeds.shape[1]
        past = cached_length(cache_in(kwargs), self.view.counting) if record is None else record.length
        frame.logical = past + length
        if mask is not None and mask.shape[1] != frame.logical:
            raise InputError(
                f"attention_mask has {mask.shape[1]} columns, but the conversation has {frame.logical} tokens "
                "(dropped visual tokens count)"
            )
        kwargs = all_logits(kwargs)
        if pictures is not None:
            changed = self._prefill(frame, kwargs, mask, made, pictures, past, record)
            if changed is not None or record is None:
                return kwargs if changed is None else changed
        assert record is not None
        reader = self.reader if length == 1 else None
        continuing = going_on(self.view, record, kwargs, mask, reader, self.self_check)
        frame.watch = continuing.watch
        return continuing.enter(kwargs, frame.hooks)

    def _prefill(
        self,
        frame: Frame,
        kwargs: dict,
        mask: torch.Tensor | None,
        made: Any,
        pictures: Pictures,
        past: int,
        record: CacheRecord | None,
    ) -> dict | None:
        """The language model's arguments of a prefill; None if there is no visual token among its input.

        Args:
            made: masks that the base model made from the 2-D one; None if it made none.
        """
        cache, embeds, positions = cache_in(kwargs), kwargs.get("inputs_embeds"), kwargs.get("position_ids")
        length = frame.logical - past
        asked = any(type(stage.strategy).prepare is not Strategy.prepare for stage in self.stages)
        if asked and positions is None:
            positions = torch.arange(past, frame.logical)[None]
        given = {**(frame.given or {}), "labels": frame.labels}
        told = self.prompt_length if self.running.prompt_length is None else self.running.prompt_length
        hidden = None if record is None or mask is None else count_hidden(mask[:, : record.tokens], record.real)
        wanted = positions if asked else None
        prompt = read_prompt(self.view, given, pictures, mask, length, told, wanted, hidden)
        if prompt is None:
            return None
        check_cache(cache, self.reader is not None or any(stage.layer > 0 for stage in self.stages))
        check_readable(self.view, self.reader, cache)
        if embeds is None:
            embeds = self.view.language_model.get_input_embeddings()(kwargs["input_ids"])  # type: ignore[operator]
            kwargs = {**kwargs, "input_ids": None, "inputs_embeds": embeds}
        if positions is None:
            positions = torch.arange(past, frame.logical, device=embeds.device)[None]
        past_mask = None
        if mask is not None and prompt.past_valid is not None:
            past_mask = mask[:, :past].bool()
            if record is not None and not prompt.past_valid[:, record.tokens :].all():
                record.learn(past_mask[:, record.tokens :])
        before = Past(cache, record, past_mask, past, self.view.depth, self.view.counting)
        return self._reduce(frame, kwargs, mask, made, prompt, pictures, positions, before)

    def _reduce(
        self,
        frame: Frame,
        kwargs: dict,
        mask: torch.Tensor | None,
        made: Any,
        prompt: Prompt,
        pictures: Pictures,
        positions: torch.Tensor,
        past: Past,
    ) -> dict:
        embeds, family = kwargs["inputs_embeds"], self.view.family
        length = embeds.shape[1]
        if past.record is not None:
            check_continued(self.view, past.record, False)
        valid = None if mask is None or prompt.valid is None else mask[:, -length:].to(embeds.device).bool()
        check_merged(pictures, self.tower)
        blocks = prompt_blocks(self.view, frame.argument(family.token_types), valid, past.tokens, length)
        session = Session(self.view, prompt, pictures.vision, embeds, valid, blocks, past, self.self_check)
        frame.session = session
        if made is not None and self._to_check(past.tokens):
            check_made(self.view, made, session.ready_masks(embeds), valid, length)
            self.masks_checked = True
        session.injection, kwargs = take_injected(session, kwargs)
        session.embeds = session.shown(embeds)
        own_name = (family.layer_inputs or ("",))[0]
        own = kwargs.get(own_name)
        session.layer_inputs = own is not None
        second = SecondForward(
            self.view, prompt, embeds, session.injection, session.layer_inputs, session.second_runs, self.self_check
        )
        prepare(session, self.stages, second)

        hidden, gapped, changed = embeds, False, past.record is not None
        for stage in [stage for stage in self.stages if stage.layer == 0]:
            cut = run_stage(session, stage, hidden, {})
            if cut is None:
                continue
            hidden, changed = cut.hidden, True
            if cut.order is not None:
                hidden = gather_tokens(hidden, cut.order)
                session.after_cut(0, "keep", cut.dropped)
                gapped |= not stage.renumber
        session.check_padding(0)
        if changed:
            row = session.row
            now = take_positions(positions, row.column)
            if (moved := past.moved(0, row.moved)) is not None:
                now = now + moved.to(now.device)
            kwargs = {**kwargs, "inputs_embeds": hidden, "position_ids": now}
            if own is not None:
                kwargs[own_name] = take_tokens(own, row.column)
            if made is not None or blocks is not None or session.beyond:
                kwargs["attention_mask"] = session.ready_masks(hidden)
            else:
                new_mask = session.mask(self.view.counting, row)
                if new_mask is None and (mask is not None or gapped):  # gaps must not be taken for packed sequences
                    columns = past.columns[self.view.counting] + hidden.shape[1]
                    new_mask = torch.ones(len(hidden), columns, device=hidden.device)
                kwargs["attention_mask"] = None if new_mask is None else new_mask.to(hidden.device, torch.long)
        later = [stage for stage in self.stages if stage.layer > 0]
        layers = PrefillLayers(session, later, positions, gapped)
        hook_layers(self.view.layers, layers.needed(self.view.depth), layers.before, frame.hooks)
        if later:
            frame.watch = layers.capture()
        if any(stage.layer == self.view.depth for stage in later):
            frame.hooks.before(self.view.final_norm, layers.after)
        return kwargs

    def _to_check(self, past: int) -> bool:
        """Whether masks that the base model made are to be compared with what is made here: once."""
        if not self.self_check or self.masks_checked or past > 0:
            return False
        kernel = self.view.language_model.config._attn_implementation  # others are refused where it matters
        acts = not all(stage.strategy.keeps_all(stage.index) for stage in self.stages)
        return acts and mask_form(kernel) in ("seen", "added")

    def _leave(self, frame: Frame, output: Any) -> Any:
        session = frame.session
        if session is None:
            return output
        cache = cache_in(output)
        session.past.made(cache)
        if cached_keys(cache, self.view.counting) is None:  # layers that are recomputed in training cache nothing
            cache = None
        session.verify()
        if self.self_check:
            check_cache_is_known(self.view, output)
            held = [session.at(session.held, layer).slots for layer in range(self.view.depth)]
            wanted = [before + own for before, own in zip(session.past.columns, held, strict=True)]
            check_columns(self.view, cache, wanted[: self.view.depth - self.view.borrowing])
        if cache is not None:
            session.leave(cache, frame.logical, Keeper(self), self.reader is not None)
        self.on_report(build_report(session, self.size, cache is not None))
        session.vision.release()
        return session.restore(output)
