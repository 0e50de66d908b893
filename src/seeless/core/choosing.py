"""Steps of decoding in which deeper layers read a part of the cached visual tokens, which a strategy chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from seeless.core.attention import LayerTap, read_nothing
from seeless.core.cache import CacheRecord, is_static
from seeless.core.capture import Call, Capture
from seeless.core.checks import asking
from seeless.core.continuing import Continuing
from seeless.core.family import ModelView
from seeless.core.host import mask_form
from seeless.decision import described
from seeless.errors import BudgetError, InputError, StrategyError, UnsupportedModel
from seeless.step import Step, StepReader


@dataclass(frozen=True, eq=False)
class Reader:
    """A strategy that chooses, what it is called, and the first layer that reads what it chose."""

    strategy: StepReader
    name: str
    layer: int


def find_reader(view: ModelView, stages: Sequence[Any]) -> Reader | None:
    """The one strategy among some planned stages that chooses what is read at a step; None if none does.

    Raises:
        BudgetError: several do, its layer lies outside the model, or another strategy cuts at or behind it.
        UnsupportedModel: layers have no attention that could be read or masked.
    """
    found = {}
    for stage in stages:
        if isinstance(stage.strategy, StepReader) and (layer := stage.strategy.reads_from(view.depth)) is not None:
            found[id(stage.strategy)] = Reader(stage.strategy, stage.name, layer)
    if not found:
        return None
    reader, *more = found.values()
    if more:
        raise BudgetError(f"{reader.name} is given twice to choose what is read at a step; give one of them")
    name, layer = reader.name, reader.layer
    if not 1 <= layer < view.depth:
        raise BudgetError(f"{name} cannot have layers from {layer} on read a part; give 1 to {view.depth - 1}")
    if late := [stage for stage in stages if stage.layer >= layer]:
        raise BudgetError(
            f"{late[0].name} drops tokens before layer {late[0].layer}, where {name} has layers from {layer} on read a "
            "part of what layer by layer is the same; let it act before an earlier layer"
        )
    if not all(map(view.attends, range(layer - 1, view.depth))):
        raise UnsupportedModel(
            f"{name} has layers from {layer} on read a part of the cached tokens, but some of this {view.family.title} "
            "model's have no attention, and a state in which no token can be left unread; leave its decode stage out"
        )
    if view.window is not None and view.slides(layer - 1):
        raise UnsupportedModel(
            f"{name} reads the attention of layer {layer - 1}, which looks back {view.window} tokens on this "
            f"{view.family.title} model and says nothing of those before; choose another layer"
        )
    return reader


def check_readable(view: ModelView, reader: Reader | None, cache: Any) -> None:
    """Refuse caches and kernels that cannot leave tokens unread.

    Raises:
        UnsupportedModel: names it.
    """
    if reader is None:
        return
    kernel = view.language_model.config._attn_implementation
    if mask_form(kernel) is None:
        raise UnsupportedModel(
            f"attn_implementation={kernel!r} takes no mask known here, so {reader.name} cannot leave cached "
            "tokens unread; load the model with 'sdpa', 'eager' or 'flash_attention_2'"
        )
    if is_static(cache):
        raise UnsupportedModel(
            f"{reader.name} cannot leave tokens of a StaticCache unread, whose steps are compiled once for "
            "all; use the default DynamicCache (no cache_implementation in generate), or leave its decode stage out"
        )


def going_on(
    view: ModelView,
    record: CacheRecord,
    kwargs: dict,
    mask: torch.Tensor | None,
    reader: Reader | None,
    self_check: bool,
) -> Continuing:
    """A forward without new visual tokens; with a reader one of a single token, in which its strategy chooses."""
    if reader is None:
        return Continuing(view, record, kwargs, mask)
    return Choosing(view, record, kwargs, mask, reader, self_check)


class Choosing(Continuing):
    """A forward of one token of which layers from the reader's on read what its strategy chooses.

    Arguments as of `Continuing`; self_check: whether attention that is read for the first time is compared.
    """

    def __init__(
        self,
        view: ModelView,
        record: CacheRecord,
        kwargs: dict,
        mask: torch.Tensor | None,
        reader: Reader,
        self_check: bool,
    ) -> None:
        super().__init__(view, record, kwargs, mask)
        self.reader = reader
        self.unread: torch.Tensor | None = None  # `[batch, columns]`, once it is chosen
        self.call: Call | None = None
        if record.visual is None or record.span(reader.layer - 1) is not record.spans[-1]:
            raise InputError(
                "this cache was made without the strategy that chooses what is read at a step, so it does not say "
                "which of its tokens are visual; start with a new one"
            )
        self.span = record.spans[-1]
        check_readable(view, reader, record.cache)
        self.watch = Capture({0: view.layers[reader.layer - 1]}, self._note, self_check)

    def _note(self, number: int, call: Call) -> None:
        self.call = call

    def _needed(self) -> list[int]:
        return sorted({*super()._needed(), *range(self.reader.layer, self.view.depth)})

    def _windowed(self, index: int) -> bool:
        return super()._windowed(index) or (self.unread is not None and self.beyond and self.view.slides(index))

    def _before(self, index: int, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if index == self.reader.layer:
            with torch.no_grad():
                self.unread, self.given = self._choose(), {}
        return super()._before(index, args, kwargs)

    def _shown(self, span: Any, device: torch.device) -> torch.Tensor | None:
        shown = super()._shown(span, device)
        if self.unread is None:
            return shown
        read = ~self.unread.to(device)
        return read if shown is None else shown & read

    def _choose(self) -> torch.Tensor:
        """Visual tokens that are not read, `[batch, columns]`."""
        layer, strategy, call = self.reader.layer - 1, self.reader.strategy, self.call
        visible, columns = super()._shown(self.span, self.device), self._counted(self.span)
        if call is None:
            raise read_nothing(self.view.layers[layer])
        assert self.record.visual is not None
        tap = LayerTap(layer, lambda asked: call, 1, columns - 1, (), lambda: False)
        device = call.query.device
        rows, everything = (torch.arange(n, device=device) for n in (self.batch, columns))
        seen = None if visible is None else visible.to(device)[:, None]
        own = rows.new_zeros(self.batch, 1)
        attention = tap.attention(rows, own, seen, everything.expand(self.batch, -1), together=True)[:, :, 0]
        visual = self.record.visual.at(self.span.first, columns).to(device)
        with asking(strategy, f"a step, before layer {layer + 1}"):
            read = strategy.read(Step(attention, visual, self.record.visual.memory))
            if not isinstance(read, torch.Tensor) or read.dtype != torch.bool or read.shape != visual.shape:
                raise StrategyError(
                    f"{type(strategy).__name__}.read gave {described(read)}; return a bool mask of "
                    f"{list(visual.shape)} [rows, columns]"
                )
        return visual & ~read
