"""What the core answers a context: read-only looks at a running decoder and at the run of its tower."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from seeless.context import Onto, Queries, Tokens
from seeless.core.attention import LayerTap
from seeless.core.family import ModelView
from seeless.core.relevance import check_clip, load_clip, read_question, text_similarity
from seeless.core.units import NO_PATCH, Layout, Unit
from seeless.core.vision import Vision
from seeless.decision import Merge
from seeless.errors import InputError, UnsupportedModel

ROWS_AT_ONCE = 32

NO_NULL_TOKEN = (
    "the whole prompt of this model sees itself, so no token after the image is blind to the question "
    "and there is no null token whose attention could be read"
)
NO_PATCH_SHOWN = (
    "some of these visual tokens show no patch (newline or class tokens), so the vision tower says nothing about them; "
    "use scope='crop'"
)


@dataclass
class GroupSources:
    """Answers a `Context` for some units of equal size.

    Args:
        rows: `[units]`, batch row of each unit.
        tokens: `[units, visual]`, places among the row's original visual tokens.
        slots: `[units, visual]`, where those stand now.
        text_slots, row_slots, answer_slots: per unit, slots of the text after the row's last visual token, of the whole
            row, and in training of the tokens right before answers.
        hidden_states: `[batch, slots, dim]` at this stage; uninjected_states before visual features were added to them;
            input_embeds likewise at layer 0, with slots of its own for the visual tokens, that text and the whole row.
        watched: per layer that a strategy watches, `[units, visual then, dim]`.
        masks: per tapped layer, `[batch, past + slots]` bool, False = padding; None = all visible.
        blocks: `[batch, slots]`, tokens of one block (0 and up) see each other both ways; None = plainly causal.
        final_norm: the decoder's, before its head.
        moved: whether tokens were added, so that places among the original ones mean nothing any more.
        text_ids: `[units, text]`, token ids of the text after the row's last visual token; None if they are unknown.
        blind: whether a token after the image cannot have seen the question.
        run_second: runs a second prompt around the images of a row; None once layers are running.
        signal: which attention of the tower was asked for last, in words.
    """

    layout: Layout
    units: list[Unit]
    rows: torch.Tensor
    tokens: torch.Tensor
    slots: torch.Tensor
    text_slots: torch.Tensor
    row_slots: torch.Tensor
    anchors: list[int | None]
    answer_slots: torch.Tensor | None
    hidden_states: torch.Tensor
    uninjected_states: torch.Tensor
    input_embeds: torch.Tensor
    input_slots: torch.Tensor
    input_text_slots: torch.Tensor
    input_row_slots: torch.Tensor
    watched: Callable[[int], torch.Tensor]
    moved: bool
    taps: dict[int, LayerTap]
    masks: dict[int, torch.Tensor | None]
    blocks: torch.Tensor | None
    blind: bool
    final_norm: nn.Module
    vision: Vision
    view: ModelView
    text_ids: torch.Tensor | None
    run_second: Callable[..., torch.Tensor] | None = None
    signal: str | None = None

    def _at(self, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        return x.detach()[self.rows.to(x.device)[:, None], slots.to(x.device)]

    def visual(self) -> torch.Tensor:
        return self._at(self.hidden_states, self.slots)

    def hidden(self) -> torch.Tensor:
        return self._at(self.hidden_states, self.row_slots)

    def uninjected(self) -> torch.Tensor:
        return self._at(self.uninjected_states, self.row_slots)

    def text(self) -> torch.Tensor:
        return self._at(self.hidden_states, self.text_slots)

    def _check_unmoved(self) -> None:
        if self.moved:
            raise InputError(
                "tokens were added before this stage, so not every visual token has an embedding or a patch of "
                "its own; read them at an earlier stage and keep them in the memory of the prefill"
            )

    def embeds(self) -> torch.Tensor:
        self._check_unmoved()
        return self._at(self.input_embeds, self.input_slots)

    def text_embeds(self) -> torch.Tensor:
        return self._at(self.input_embeds, self.input_text_slots)

    def row_embeds(self) -> torch.Tensor:
        self._check_unmoved()
        return self._at(self.input_embeds, self.input_row_slots)

    def places(self) -> torch.Tensor:
        return torch.searchsorted(self.row_slots, self.slots)

    def entering(self, layer: int) -> torch.Tensor:
        return self.watched(layer)

    def _tap(self, layer: int) -> LayerTap:
        if layer not in self.taps:
            has = ", ".join(map(str, sorted(self.taps))) or "none (the entry comes before all layers)"
            raise InputError(f"attention of decoder layer {layer} cannot be read at this stage; available: {has}")
        return self.taps[layer]

    def _query_slots(self, queries: Queries) -> torch.Tensor:
        if isinstance(queries, torch.Tensor):
            return self.row_slots[:, queries.to(self.row_slots.device)]
        if queries == "last":
            return self.row_slots[:, -1:]
        if queries == "text":
            if self.text_slots.shape[1] == 0:
                raise InputError("no token follows the image, so there is no text whose attention could be read")
            return self.text_slots
        if queries == "anchor":
            if not self.blind:
                raise UnsupportedModel(NO_NULL_TOKEN)
            if None in self.anchors:
                raise InputError("no token follows the image, so there is no null token whose attention could be read")
            return torch.tensor(self.anchors, device=self.rows.device)[:, None]
        if queries == "answers":
            if self.answer_slots is None or self.answer_slots.shape[1] == 0:
                raise InputError("no labels mark an answer here; queries='answers' is for training on answers")
            return self.answer_slots
        raise InputError(f"queries={queries!r} is not possible; use 'last', 'text', 'anchor' or a tensor of rows")

    def attention(
        self, queries: Queries, layer: int, average: bool, onto: Onto = "visual", causal: bool = True
    ) -> torch.Tensor:
        tap, slots = self._tap(layer), self._query_slots(queries)
        device, past = tap.device, tap.past
        rows, slots = self.rows.to(device), slots.to(device)
        valid = self.masks[layer]
        together = len(self.units) == tap.batch and self.rows.tolist() == list(range(tap.batch))
        valid = None if valid is None else valid.to(device)[rows]
        columns = past + (self.slots if onto == "visual" else self.row_slots).to(device)
        key_index = torch.arange(past + tap.slots, device=device)
        parts = []
        for some in slots.split(ROWS_AT_ONCE, dim=1):
            visible = key_index <= past + some[..., None] if causal else torch.ones_like(key_index <= some[..., None])
            if self.blocks is not None:
                block = self.blocks.to(device)[rows]
                own = block.gather(1, some)[..., None]
                visible[..., past:] |= (own == block[:, None]) & (own >= 0)
            if valid is not None:
                visible = visible & valid[:, None]
            part = tap.attention(rows, some, visible, columns, together, check=causal)
            parts.append(part.sum(2, keepdim=True) / slots.shape[1] if average else part)
        whole = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        return whole.sum(2, keepdim=True) if average else whole

    def second(
        self, before: Sequence[int], between: Sequence[int], after: Sequence[int], layers: Sequence[int]
    ) -> torch.Tensor:
        if self.run_second is None:
            raise InputError("a second prompt can only be run before the first layer; call ctx.second in `prepare`")
        run = self.run_second
        attention = [run(unit.row, before, between, after, layers)[..., unit.tokens] for unit in self.units]
        return torch.stack(attention)

    def rope_bias(self, queries: Queries, layer: int) -> torch.Tensor:
        tap, slots = self._tap(layer), self._query_slots(queries)
        rows, slots, onto = (x.to(tap.device) for x in (self.rows, slots, self.slots))
        return tap.rope_bias(rows, slots, onto, self.view.frequencies)

    def keys(self, layer: int, tokens: Tokens) -> torch.Tensor:
        tap = self._tap(layer)
        slots = self.text_slots if tokens == "text" else self.slots
        return self._at(tap.keys.transpose(1, 2), tap.past + slots).transpose(1, 2)

    def normed(self, tokens: Tokens) -> torch.Tensor:
        hidden = self.text() if tokens == "text" else self.visual()
        return self.final_norm(hidden).to(hidden.device)

    def _sources(self) -> torch.Tensor:
        """`[units, visual]`, places in the tables of `vision`."""
        self._check_unmoved()
        sources = torch.stack([self.layout.source(u.row)[own] for u, own in zip(self.units, self.tokens, strict=True)])
        if bool((sources == NO_PATCH).any()):
            raise InputError(NO_PATCH_SHOWN)
        return sources

    def vision_attention(self) -> torch.Tensor:
        attention, self.signal = self.vision.attention, self.vision.signal
        return attention[self._sources()].transpose(1, 2)

    def patch(self) -> torch.Tensor:
        self._check_unmoved()
        return torch.stack([self.layout.patch(u.row)[own] for u, own in zip(self.units, self.tokens, strict=True)])

    def frame(self) -> torch.Tensor:
        frames = torch.stack([self.layout.frame(u.row)[own] for u, own in zip(self.units, self.tokens, strict=True)])
        if bool((frames >= 0).any()):
            self._check_unmoved()
        return frames

    def crop_attention(self) -> torch.Tensor:
        attention, self.signal = self.vision.attention, self.vision.signal
        first = (self._sources() - self.patch())[:, :1]
        placed = next(p for p in self.layout.images[self.units[0].row] if bool((p.tokens == self.tokens[0, 0]).any()))
        crop = int(placed.image.crop[placed.tokens == self.tokens[0, 0]])
        height, width = placed.image.sides[crop]
        everything = first + torch.arange(height * width, device=first.device)
        return attention[everything].transpose(1, 2)

    def vision_features(self) -> torch.Tensor:
        return self.vision.features[self._sources()]

    def vision_keys(self) -> torch.Tensor:
        return self.vision.keys[self._sources()].transpose(1, 2)

    def tower_groups(self) -> torch.Tensor:
        return self.vision.groups[self._sources()]

    def class_token(self) -> torch.Tensor | None:
        own = self._class_token_with_gradient()
        return None if own is None else own.detach()

    def reader_attention(self) -> torch.Tensor:
        attention, self.signal = self.vision.reader_attention, self.vision.reader_signal
        return attention[self._sources()]

    def reader_keys(self) -> torch.Tensor:
        return self.vision.reader_keys[self._sources()]

    def text_similarity(self, clip: str | None, question: str | None) -> torch.Tensor:
        model, tokenizer = load_clip(check_clip(self.view, clip))
        questions = [question] * len(self.units) if question is not None else self._questions()
        return text_similarity(model, tokenizer, self.vision_features(), questions)

    def _questions(self) -> list[str]:
        """Of every unit's row."""
        if self.text_ids is None:
            raise InputError("a forward without input_ids does not say what is asked; give the text with question=")
        return [read_question(self.view.config._name_or_path, ids) for ids in self.text_ids]

    def _class_token_with_gradient(self) -> torch.Tensor | None:
        if (all_pictures := self.vision.class_tokens_with_gradient()) is None:
            return None
        picture = self.vision.picture(self._sources())
        if bool((picture != picture[:, :1]).any()):
            raise InputError("a unit of several pictures has several class tokens; use scope='crop'")
        return all_pictures[picture[:, 0].to(all_pictures.device)]

    def merged_features(self, merge: Merge) -> torch.Tensor:
        """What the projector is to take in for the merged tokens, `[units, visual, dim]`, with gradient."""
        features = self.vision.features_with_gradient()
        features = features[self._sources().to(features.device)]
        if bool((merge.source == features.shape[1]).any()):
            if (own := self._class_token_with_gradient()) is None:
                raise InputError("the projector of this model takes no class token, so none can be given to it")
            features = torch.cat([features, own[:, None]], 1)
        return merge.values(features)
