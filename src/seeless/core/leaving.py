"""The seams inside the vision tower after which patches are gone: layers that run on what is left."""

import inspect
import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from seeless.core.capture import Call, Capture
from seeless.core.checks import Findings, asking
from seeless.core.family import ModelView
from seeless.core.hooks import HookSet, around_layers
from seeless.core.inside_tower import (
    check_frames,
    check_inside,
    check_unpadded,
    fit_arguments,
    fit_mask,
    lay_out,
    same_grids,
)
from seeless.core.patch_answers import PatchAnswers, Watched
from seeless.core.patches_left import Left
from seeless.core.transfer import fetch
from seeless.core.vision import VisionTap
from seeless.decision import Keep, Merge
from seeless.errors import InputError, StrategyError, UnsupportedModel
from seeless.faults import check_kinds, faults
from seeless.patches import PatchContext, PatchStrategy


def leaving_layers(
    view: ModelView, kind: str, strategy: PatchStrategy, choice: int | list[int] | None = None
) -> list[int]:
    """The tower layers before which patches may leave.

    Args:
        choice: `vision_feature_layer` of this run; None = the config's.

    Raises:
        UnsupportedModel: the tower or the model cannot do what the strategy asks for.
        BudgetError: the tower is too shallow for it.
    """
    title, made = view.family.title, max(view.tapped_layers(kind, choice))
    check_inside(view, kind, range(len(view.tower_layers(kind))), "patches that are left")
    if kind == "image" and view.family.unresampled:
        raise UnsupportedModel(
            f"the tiles of {title} are resampled after the tower, which would mix patches that left into others; use a "
            "strategy that acts at the entry or later"
        )
    if set(strategy.inside) & {"class_attention", "values"} and not view.has_class_token:
        raise UnsupportedModel(
            f"{strategy.name} ranks patches by what the class token makes of them, and this vision tower has none; "
            "use a strategy that reads no class token"
        )
    return strategy.tower_layers(made)


@dataclass
class Asked:
    """Pictures that are asked about together, and what was said of them.

    Args:
        pictures: their numbers.
        places: `[pictures, tokens]`, where their tokens stand among all that are left.
    """

    pictures: list[int]
    places: torch.Tensor
    decision: Keep | Merge


class Leaving:
    """Seams of one run of the tower, and what is left of its pictures.

    Tokens are numbered through all pictures, in the order in which the decoder has them. A *slot* is the place of a
    patch or a class token in the whole input of a layer, row after row. Slots that are left keep their order. Where
    rows have unequally many, they stand one behind the other as one row, and layers run on one after another.

    Args:
        asked: before which layers the strategy is asked.
        tap: what is known of this run; its `patches` are empty if all pictures have one size.
        taken: layers whose outputs are taken as those of all patches.
        self_check: whether attention that is read for the first time is compared with the model's own.

    Raises:
        UnsupportedModel: a token is made of several frames.
    """

    def __init__(
        self,
        view: ModelView,
        kind: str,
        strategy: PatchStrategy,
        asked: list[int],
        tap: VisionTap,
        taken: list[int],
        self_check: bool,
    ) -> None:
        check_frames(view, kind)
        self.view, self.kind, self.strategy, self.asked, self.tap = view, kind, strategy, asked, tap
        self.taken, self.made, self.self_check = set(taken), max(taken), self_check
        self.modules = view.tower_layers(kind)
        self.lead = int(view.has_class_token)
        self.findings = Findings()
        self.pixels: torch.Tensor | None = None
        self.watched: Watched | None = None
        self.layers = range(min(asked), self.made)
        self.started = self.short = self.left = False
        self.scores: torch.Tensor | None = None

    def attach(self, hooks: HookSet) -> None:
        if "pixels" in self.strategy.inside:
            hooks.before(self.view.tower(self.kind), self._see_pixels)
        first = min([*self.asked, *(layer - 1 for layer in self.asked if self._watches(layer - 1))])
        around_layers(self.modules, range(first, len(self.modules) - self.tap.skipped), self._around, hooks)
        if (readers := self.view.family.tower_readers) is not None:
            for reader in getattr(self.view.tower(self.kind), readers):
                hooks.before(reader, self._before_reader)

    def outcome(self) -> Left:
        """What became of the patches, once the tap knows which tokens came out.

        Raises:
            UnsupportedModel: those are not the blocks of patches that were asked about.
        """
        if [height * width for height, width in self.tap.tokens] != self.tokens:
            raise UnsupportedModel(
                f"{self.tap.count} tokens came out of {self.view.family.title}'s tower, but {sum(self.tokens)} blocks "
                "of patches went in; use a strategy that acts at the entry or later"
            )
        stays = torch.zeros(len(self.members), dtype=torch.bool, device=self.alive.device)
        stays[self.alive] = True
        sizes = [count * self.block for count in self.counts]
        seen = [list(own) for own in zip(*self.seen, strict=True)]
        return Left(self.strategy, stays, self._patches(self.order), sizes, seen, self.findings)

    def _patches(self, slots: torch.Tensor) -> torch.Tensor:
        """Numbers of the patches in some slots, without class tokens."""
        if not self.lead:
            return slots
        own = torch.cat([part[1:] for part in slots.split(self._row_lengths())])
        return own - own // self.length - 1

    # What layers see.

    def _see_pixels(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.pixels = args[0] if args else next(iter(kwargs.values()))

    def _watches(self, index: int) -> bool:
        return index + 1 in self.asked and bool(set(self.strategy.inside) & {"class_attention", "values"})

    def _around(self, index: int, below: Callable, args: tuple, kwargs: dict) -> Any:
        names = list(inspect.signature(self.modules[index].forward).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        hidden = given.pop(names[0])
        if not self.started:
            self._start(hidden)
        if self.left and not self.short:
            hidden = self._shortened(hidden)
        if index in self.asked:
            hidden = self._ask(index, hidden)
        self.seen[index] = [count * self.block for count in self.counts]
        with self._watch(index) if self._watches(index) else nullcontext():
            output = self._run(below, hidden, given) if self.left else below(hidden, **given)
        self.short = self.left and index < self.made and index not in self.taken
        return self._of_states(output, self._lengthened) if self.left and not self.short else output

    def _before_reader(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        return ((self._lengthened(args[0]), *args[1:]), kwargs) if self.short else None

    def _watch(self, index: int) -> Capture:
        self.watched = watched = Watched.of(index)

        def note(_: int, call: Call) -> None:
            watched.see(call)

        return Capture({index: self.modules[index]}, note, self.self_check, values=True)

    @staticmethod
    def _of_states(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """What a layer gives, with other states in it."""
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    def _start(self, hidden: torch.Tensor) -> None:
        """Lay out the tokens of all pictures over the slots."""
        check_unpadded(self.tap.seen, self.strategy.name)
        rows = hidden if hidden.ndim == 3 else hidden[None]
        self.rows, self.length, self.shape = len(rows), rows.shape[1], hidden.shape
        patches = self.length - self.lead
        grids = self.tap.patches or same_grids(self.rows, patches)
        members = lay_out(self.view, self.kind, grids, self.rows * patches)
        if len(grids) % self.rows:
            raise InputError(f"the vision tower saw {self.rows} rows of patches, among which are {len(grids)} pictures")
        block = math.isqrt(members[0].shape[1])
        self.blocks = [(height // block, width // block) for height, width in grids]
        self.tokens = self.counts = [len(own) for own in members]
        self.grids = grids
        places = self.place = torch.cat(members)
        if self.tap.windows is not None:  # from the decoder's order to the tower's
            places = places[self.tap.windows.cpu().argsort()]
        self.block = places.shape[1]
        slots = places + (places // patches + 1) * self.lead
        self.members = slots.to(hidden.device)
        starts = torch.arange(self.rows)[:, None] * self.length + torch.arange(self.lead)
        self.class_slots = starts.flatten().to(hidden.device)
        self.order = torch.arange(self.rows * self.length, device=hidden.device)
        self.alive = torch.arange(len(places), device=hidden.device)
        self.index = torch.cat([torch.arange(n) for n in self.tokens]).to(hidden.device)
        self.seen = [[height * width for height, width in grids] for _ in self.modules]
        self.started = True

    # The whole sequence, and what is left of it.

    def _row_lengths(self) -> list[int]:
        """Slots that are left of each row."""
        per_row = len(self.counts) // self.rows
        own = [sum(self.counts[row * per_row : (row + 1) * per_row]) for row in range(self.rows)]
        return [self.lead + count * self.block for count in own]

    def _shaped(self, flat: torch.Tensor) -> torch.Tensor:
        """States of what is left as layers take them."""
        if len(self.shape) == 2:
            return flat
        even = len(set(self._row_lengths())) == 1
        return flat.unflatten(0, (self.rows, -1)) if even else flat[None]

    def _shortened(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._shaped(hidden.flatten(0, -2)[self.order.to(hidden.device)])

    def _lengthened(self, hidden: torch.Tensor) -> torch.Tensor:
        """All slots, with zeros where nothing is left."""
        flat = hidden.flatten(0, -2)
        full = flat.new_zeros(self.rows * self.length, flat.shape[-1])
        return full.index_copy(0, self.order.to(flat.device), flat).view(*self.shape[:-1], -1)

    def _run(self, below: Callable, hidden: torch.Tensor, given: dict) -> Any:
        """The layer on what is left."""
        lengths = self._row_lengths()
        own = [part.to(hidden.device) - row * self.length for row, part in enumerate(self.order.split(lengths))]
        turned = given.get("position_embeddings") is not None
        if self.rows == 1 or (len(set(lengths)) == 1 and not turned):
            return below(hidden, **self._fitted(given, torch.stack(own)))
        outputs = []
        for row, part in enumerate(hidden.flatten(0, -2).split(lengths)):
            alone = given
            if (mask := given.get("attention_mask")) is not None and len(mask) > 1:
                alone = {**given, "attention_mask": mask[row : row + 1]}
            outputs.append(below(part[None], **self._fitted(alone, own[row][None])))
        states = torch.cat([(each[0] if isinstance(each, tuple) else each)[0] for each in outputs])
        return self._of_states(outputs[0], lambda _: self._shaped(states))

    def _fitted(self, given: dict, order: torch.Tensor) -> dict:
        def mask(whole: torch.Tensor | None) -> torch.Tensor | None:
            return None if whole is None else fit_mask(whole, order)

        return fit_arguments(given, order, self.view.family.title, mask)

    # What the strategy says.

    def _ask(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        flat = hidden.flatten(0, -2)
        device = flat.device
        self.order, self.members, self.alive, self.index, self.class_slots = (
            x.to(device) for x in (self.order, self.members, self.alive, self.index, self.class_slots)
        )
        seats = torch.searchsorted(self.order, self.members[self.alive])
        lead = torch.searchsorted(self.order, self.class_slots)
        sizes = self._row_lengths() if self.lead else []
        asked = []
        with torch.no_grad(), asking(self.strategy, f"before tower layer {index}"):
            for pictures, places in self._alike(device):
                answers = PatchAnswers(self, flat.detach(), places, pictures, seats, lead, sizes)
                asked.append(self._asked(index, pictures, places, answers))
        self.watched = None
        return self._apply(hidden, seats, asked)

    def _alike(self, device: torch.device) -> list[tuple[list[int], torch.Tensor]]:
        """Pictures of one grid with as many tokens left."""
        found = defaultdict(list)
        for number, key in enumerate(zip(self.blocks, self.counts, strict=True)):
            found[key].append(number)
        starts = [0, *accumulate(self.counts)]
        return [
            (own, torch.stack([torch.arange(starts[n], starts[n] + count) for n in own]).to(device))
            for (_, count), own in found.items()
        ]

    def _asked(self, index: int, pictures: list[int], places: torch.Tensor, answers: PatchAnswers) -> Asked:
        strategy, own = self.strategy, pictures[0]
        scores = None if self.scores is None else self.scores.to(places.device)[places]
        context = PatchContext(
            layer=index,
            made=self.made,
            n_keep=min(strategy.count(0, self.tokens[own]), self.counts[own]),
            index=self.index[places],
            grid=self.blocks[own],
            video=self.kind == "video",
            scores=scores,
            sources=answers,
        )
        decision = strategy.leave(context)
        name = type(strategy).__name__
        check_kinds(decision, places.shape, f"{name}.leave")
        if not isinstance(decision, Keep | Merge) or (isinstance(decision, Merge) and decision.features != "hidden"):
            raise StrategyError(f"{name}.leave may give a Keep, or a Merge of hidden states; it gave {decision!r}")
        found = faults(decision, count=decision.count, dtype=torch.float32)
        self.findings.add(f"{name}, before tower layer {index}", lambda n: f"picture {pictures[n]}", found)
        return Asked(pictures, places, decision)

    def _apply(self, hidden: torch.Tensor, seats: torch.Tensor, asked: list[Asked]) -> torch.Tensor:
        """Let tokens leave, and give those that stay their new values."""
        counts = list(self.counts)
        unknown = {str(i): each.decision.mask.sum(1) for i, each in enumerate(asked) if each.decision.count is None}
        found = fetch(unknown) if unknown else {}
        for i, each in enumerate(asked):
            own = found[str(i)].tolist() if str(i) in found else [each.decision.count] * len(each.pictures)
            for picture, count in zip(each.pictures, own, strict=True):
                counts[picture] = max(1, count)  # that none may stay is among the findings
        scored = [each for each in asked if each.decision.scores is not None]
        scores = torch.full((len(seats),), torch.nan, device=seats.device) if scored else None
        stays = torch.ones(len(seats), dtype=torch.bool, device=seats.device)
        flat = hidden.flatten(0, -2)
        for each in asked:
            stays[each.places] = each.decision.mask
            if scores is not None and each.decision.scores is not None:
                scores[each.places] = each.decision.scores.float()
            if isinstance(each.decision, Merge):
                exact, where = torch.promote_types(flat.dtype, torch.float32), seats[each.places]
                new = each.decision.values(flat[where].flatten(2).to(exact)).to(flat.dtype)
                flat = flat.index_put((where,), new.unflatten(2, (self.block, -1)))
        if counts == self.counts:
            self.scores = scores
            return flat.view(hidden.shape)
        left = stays.byte().argsort(descending=True, stable=True)[: sum(counts)]
        self.scores = None if scores is None else scores[left]
        self.alive, self.index, self.counts, self.left = self.alive[left], self.index[left], counts, True
        before = self.order
        self.order = torch.cat([self.class_slots, self.members[self.alive].flatten()]).sort().values
        return self._shaped(flat[torch.searchsorted(before, self.order)])
