"""From a finished prefill to its report: numbers the host knows, and a few small tensors to be fetched when asked."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from seeless.core.boxes import boxes_of
from seeless.core.images import Image
from seeless.core.positions import TokenRow
from seeless.core.session import Session
from seeless.core.transfer import fetch
from seeless.flops import Cost, Dimensions, decoder_layer_flops, kv_bytes, prefill_cost
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
        pictures, tokens: per picture the tower took in, its patches, and the tokens they became.
        unmerged, inside: per picture, the patches that each layer of the tower sees without a strategy that merges
            there, and saw.
        shown: per row, the pictures in it.
        second: (row, operations) of second prompts.
        number: bytes of a number in the cache; 0 without one.
        class_token, centred: whether the tower has a class token, and saw the centre of the picture alone.
        images: per row, those in it; `overview` is the crop that shows all of one.
    """

    size: Dimensions
    full: list[list[int]]
    reduced: list[list[int]]
    held: list[list[int]]
    unreduced: list[int]
    past: list[int]
    pictures: list[int]
    tokens: list[int]
    unmerged: list[list[int]]
    inside: list[list[int]]
    shown: list[list[int]]
    second: list[tuple[int, int]]
    number: int
    class_token: bool
    centred: bool
    images: list[list[Image]]
    overview: int

    def flops(self) -> tuple[Cost, Cost]:
        before = self._cost(self.full, self.unreduced, self.pictures, self.unmerged, sum(self.tokens))
        after = self._cost(self.reduced, self.past, self.pictures, self.inside, sum(self.tokens))
        return before, replace(after, decoder=after.decoder + sum(flops for _, flops in self.second))

    def _cost(
        self, lengths: list[list[int]], past: list[int], pictures: list[int], inside: list[list[int]], tokens: int
    ) -> Cost:
        return prefill_cost(self.size, lengths, past, pictures, inside, tokens, self.class_token)

    def row_flops(self) -> list[tuple[int, int]]:
        more = [sum(flops for of, flops in self.second if of == row) for row in range(len(self.shown))]
        return [
            (
                self._alone(row, self.full, self.unreduced, self.unmerged),
                self._alone(row, self.reduced, self.past, self.inside) + more[row],
            )
            for row in range(len(self.shown))
        ]

    def _alone(self, row: int, lengths: list[list[int]], past: list[int], inside: list[list[int]]) -> int:
        own = self.shown[row]
        patches, seen = [self.pictures[number] for number in own], [inside[number] for number in own]
        mine = [[each[row]] for each in lengths]
        return self._cost(mine, past, patches, seen, sum(self.tokens[number] for number in own)).total

    def kv_bytes(self) -> tuple[int, int]:
        return (
            kv_bytes(self.size, self.full, self.unreduced, self.number),
            kv_bytes(self.size, self.held, self.past, self.number),
        )

    def boxes(self) -> list[list[torch.Tensor]]:
        return [[torch.from_numpy(boxes_of(image, self.overview)) for image in row] for row in self.images]

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
    everything = [seen for tap in session.vision.taps for seen in tap.per_layer]
    pictures = [seen[0] for seen in everything]
    inside = [seen for tap in session.vision.taps if tap.merged is not None for seen in tap.merged.seen] or everything
    facts = PrefillFacts(
        size=size,
        full=[[n + t for n, t in zip(original, text, strict=True)]] * depth,
        reduced=[[n + t for n, t in zip(row, text, strict=True)] for row in visual],
        held=[session.at(session.held, layer).lengths for layer in range(depth)],
        unreduced=[session.past.tokens] * depth,
        past=session.past.columns,
        pictures=pictures,
        tokens=[height * width for tap in session.vision.taps for height, width in tap.tokens],
        unmerged=everything,
        inside=inside,
        shown=[_pictures_of(session, row) for row in range(len(original))],
        second=[
            (row, sum(decoder_layer_flops(size, n, layer=layer) for layer in range(layers)))
            for row, n, layers in session.second_runs
        ],
        number=session.number_bytes if cached else 0,
        class_token=view.has_class_token,
        images=[[placed.image for placed in row] for row in layout.images],
        overview=view.family.overview,
        centred=view.family.packer is None and view.config.vision_config.model_type == "clip_vision_model",
    )
    return Report(session.stages, visual, text, facts)


def _pictures_of(session: Session, row: int) -> list[int]:
    """Which of the pictures that the tower took in are shown in a row."""
    first: dict[int, int] = {}  # of each run of the tower, by the tokens before it
    pictures = tokens = 0
    for tap in session.vision.taps:
        first[tokens] = pictures
        pictures, tokens = pictures + len(tap.patches), tokens + tap.count
    placed = session.prompt.layout.images[row]
    return sorted({first[each.base] + number for each in placed for number in np.unique(each.image.crop).tolist()})
