"""From a finished prefill to its report: numbers the host knows, and a few small tensors to be fetched when asked."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from seeless.core.boxes import Shown, boxes_of
from seeless.core.cache import cache_room, cached_states
from seeless.core.positions import TokenRow
from seeless.core.session import Session
from seeless.core.transfer import fetch
from seeless.core.vision import VisionTap
from seeless.errors import InputError
from seeless.flops import Cost, Dimensions, Picture, decoder_layer_flops, kv_bytes, prefill_cost
from seeless.report import Report, StageReport


class Before:
    """What was there before a stage, from which its report is made after it."""

    def __init__(self, session: Session) -> None:
        self.session, self.alive, self.row = session, session.alive, session.row

    def report(
        self,
        layer: int,
        name: str,
        before: list[int],
        scores: torch.Tensor | None = None,
        signal: str | None = None,
        read: dict[int, int] | None = None,
    ) -> StageReport:
        """The report of a stage.

        Args:
            before: visual tokens per row before it.
            scores: `[batch, seq]` at the columns of the input; nan: not ranked.
            signal, read: see `StageReport.signal` and `attention`.
        """
        session, columns = self.session, self.session.prompt.layout.columns
        length, was, alive = session.prompt.length, self.alive, session.alive
        kept = alive if session.row.token is None else alive & ~_added(session.row, length)
        slots = None if self.row.token is None else self.row.slot_of(length)

        def find() -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
            host = fetch({"was": was, "kept": kept, **({} if slots is None else {"slots": slots})})
            own = [torch.from_numpy(np.flatnonzero(host["kept"][row, own])) for row, own in enumerate(columns)]
            if scores is None:
                return own, None
            numbers, ranked = scores.cpu(), []
            for row, places in enumerate(columns):
                there = places[host["was"][row, places] != 0]
                if slots is not None:
                    there = there[host["slots"][row, there].argsort(kind="stable")]
                ranked.append(numbers[row, torch.from_numpy(there)])
            return own, ranked

        return StageReport(layer, name, before, list(session.ledger.total), signal, read or {}, find)


def _added(row: TokenRow, length: int) -> torch.Tensor:
    """`[batch, length]` bool, the columns that lent their place to a token that was added."""
    slots = row.slot_of(length)
    return (slots >= 0) & (row.tokens.gather(1, slots.clamp(min=0)) >= length)


@dataclass(frozen=True, eq=False)
class PrefillFacts:
    """Whole numbers from which a report counts what a prefill cost.

    Args:
        size: of the model.
        full, reduced, held: per layer, the tokens of every row without reduction, that it saw, and that its cache has.
        unreduced, past: per layer, tokens cached before, without reduction and with it.
        room: per layer, the most tokens of a row that its cache holds; None = any number.
        unmerged, pictures: what the tower takes in where nothing merges there and every layer runs, and took in.
        shown: per row, the pictures in it.
        original, visual: per layer, the visual tokens among `full` and `reduced`.
        second: (row, operations) of second prompts.
        entry: per layer, bytes of one token in its cache; 0 without one.
        class_token, centred: whether the tower has a class token, and saw the centre of the picture alone.
        rows: per row, the images in it.
    """

    size: Dimensions
    full: list[list[int]]
    reduced: list[list[int]]
    held: list[list[int]]
    unreduced: list[int]
    past: list[int]
    room: list[int | None]
    unmerged: list[Picture]
    pictures: list[Picture]
    shown: list[list[int]]
    original: list[list[int]]
    visual: list[list[int]]
    second: list[tuple[int, int]]
    entry: list[int]
    class_token: bool
    centred: bool
    rows: list[Shown]

    def flops(self) -> tuple[Cost, Cost]:
        before = prefill_cost(self.size, self.full, self.unreduced, self.unmerged, self.class_token, self.original)
        after = prefill_cost(self.size, self.reduced, self.past, self.pictures, self.class_token, self.visual)
        return before, replace(after, decoder=after.decoder + sum(flops for _, flops in self.second))

    def row_flops(self) -> list[tuple[int, int]]:
        more = [sum(flops for of, flops in self.second if of == row) for row in range(len(self.shown))]
        return [
            (
                self._alone(row, self.full, self.unreduced, self.unmerged, self.original),
                self._alone(row, self.reduced, self.past, self.pictures, self.visual) + more[row],
            )
            for row in range(len(self.shown))
        ]

    def _alone(
        self,
        row: int,
        lengths: list[list[int]],
        past: list[int],
        pictures: list[Picture],
        visual: list[list[int]],
    ) -> int:
        own = [pictures[number] for number in self.shown[row]]
        tokens, shown = ([[each[row]] for each in of_rows] for of_rows in (lengths, visual))
        return prefill_cost(self.size, tokens, past, own, self.class_token, shown).total

    def kv_bytes(self) -> tuple[int, int]:
        return (
            kv_bytes(self.entry, self.full, self.unreduced, self.room),
            kv_bytes(self.entry, self.held, self.past, self.room),
        )

    def boxes(self) -> list[list[torch.Tensor]]:
        return [[torch.from_numpy(boxes_of(p.image, row.family.overview)) for p in row.placed] for row in self.rows]

    def picture(self, row: int, number: int, aspect: float) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = self.rows[row].pictures()
        if not 0 <= number < len(pictures):
            raise InputError(f"row {row} shows {len(pictures)} pictures, so there is no picture={number}")
        placed, overview = pictures[number], self.rows[row].family.overview
        return torch.from_numpy(placed.tokens), torch.from_numpy(boxes_of(placed.image, overview, aspect))

    def centre_crop(self) -> bool:
        return self.centred


def build_report(session: Session, size: Dimensions, cached: bool) -> Report:
    """The report of a prefill; `cached`: whether there is a cache."""
    view, layout, depth = session.view, session.prompt.layout, session.view.depth
    original = [len(own) for own in layout.columns]
    text = [length - n for length, n in zip(session.prompt.lengths(), original, strict=True)]
    visual = []
    for layer in range(depth):
        done = [stage for stage in session.stages if stage.layer <= layer]
        visual.append(done[-1].n_after if done else original)
    facts = PrefillFacts(
        size=size,
        full=[[n + t for n, t in zip(original, text, strict=True)]] * depth,
        reduced=[[n + t for n, t in zip(row, text, strict=True)] for row in visual],
        held=[session.at(session.held, layer).lengths for layer in range(depth)],
        unreduced=[session.past.tokens] * depth,
        past=session.past.columns,
        room=[cache_room(session.past.cache, layer) for layer in range(depth)],
        unmerged=_pictures(session, reduced=False),
        pictures=_pictures(session, reduced=True),
        shown=[_pictures_of(session, row) for row in range(len(original))],
        original=[original] * depth,
        visual=visual,
        second=[(row, _first_layers(size, n, layers)) for row, n, layers in session.second_runs],
        entry=[_entry(session, size, layer) if cached else 0 for layer in range(depth)],
        class_token=view.has_class_token,
        rows=[_shown(session, row) for row in range(len(original))],
        centred=view.family.packer is None and view.config.vision_config.model_type == "clip_vision_model",
    )
    return Report(session.stages, visual, text, facts)


def _entry(session: Session, size: Dimensions, layer: int) -> int:
    """Bytes that a layer caches of one token: of what it has cached, which may be compressed (DeepSeek V3's latents in
    some releases), or, where that cannot be seen, of keys and values for all its key heads."""
    if layer in size.recurrent:
        return 0
    keys, values = cached_states(session.past.cache, layer)
    if keys is not None and values is not None and keys.ndim == 4:
        return session.number_bytes * sum(x.shape[1] * x.shape[3] for x in (keys, values))
    kv_heads, head_dim = size.of_layer(layer)
    return session.number_bytes * 2 * kv_heads * head_dim


def _shown(session: Session, row: int) -> Shown:
    """The images of a row, with the text before each."""
    view, prompt = session.view, session.prompt
    columns, placed, texts = prompt.layout.columns[row], prompt.layout.images[row], None
    if prompt.ids is not None:
        firsts = [int(columns[each.tokens[0]]) for each in placed]
        ends = [0, *(int(columns[each.tokens[-1]]) + 1 for each in placed)]
        texts = [prompt.ids[row, end:first].tolist() for end, first in zip(ends, firsts, strict=False)]
    return Shown(placed, texts, view.family, str(getattr(view.config, "_name_or_path", "")))


def _pictures(session: Session, reduced: bool) -> list[Picture]:
    """The pictures that the tower took in; `reduced`: with what was left of them there, layer by layer."""
    found: list[Picture] = []
    for number, tap in enumerate(session.vision.taps):
        inside = _ran(tap) if reduced else tap.per_layer
        apart = tap.frames if tap.frames and not tap.view.family.frames_attend else [1] * len(tap.patches)
        for side, tokens, seen, frames in zip(tap.sides, tap.projected_tokens, inside, apart, strict=True):
            found.append(Picture(side, tokens, seen, -1 - number if tap.in_one_sequence else len(found), frames))
    return found


def _ran(tap: VisionTap) -> list[list[int]]:
    """Of every picture, the patches that each layer of the tower saw: 0 where it did not run."""
    seen = tap.per_layer if tap.merged is None else tap.merged.seen
    return [[*own[: len(own) - tap.skipped], *[0] * tap.skipped] for own in seen]


def _first_layers(size: Dimensions, tokens: int, layers: int) -> int:
    return sum(decoder_layer_flops(size, tokens, layer=layer) for layer in range(layers))


def _pictures_of(session: Session, row: int) -> list[int]:
    """Which of the pictures that the tower took in are shown in a row."""
    first: dict[int, int] = {}  # of each run of the tower, by the tokens before it
    pictures = tokens = 0
    for tap in session.vision.taps:
        first[tokens] = pictures
        pictures, tokens = pictures + len(tap.patches), tokens + tap.count
    placed = session.prompt.layout.images[row]
    return sorted({first[each.base] + number for each in placed for number in np.unique(each.image.crop).tolist()})
