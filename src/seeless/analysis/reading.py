"""What every decoder layer and the vision tower attend to in one prefill that drops nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from seeless import models
from seeless.api import apply
from seeless.budget import Budget
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import InputError
from seeless.strategy import Scope, Stage, Strategy
from seeless.tower import TowerSignal

ROWS_AT_ONCE = 256  # of attention, in all heads


@dataclass(frozen=True, eq=False)
class Reading:
    """Attention to the visual tokens of one picture, mean over heads, float64.

    Args:
        layers: the decoder layers that were read, `read` of them.
        last: `[read, visual]`, the row of the prompt's last token.
        full: `[read, visual]`, what a token receives on average from the rows that may see it, of all rows from the
            first visual token on; nan where there are none.
        image: the same of rows of visual tokens; text: of rows behind the last visual token, the prompt's last row left
            out, as the study of attention shift has it.
        text_share: `[read]`, how much of the attention of those rows of text goes to visual tokens, on average.
        tower: `[visual]`, the class token's row in the layer that made the features (on towers without one what a patch
            receives on average there); None where the tower is not read.
        grid: height and width in tokens where the visual tokens form one.

    All but `layers`, `last`, `tower` and `grid` are None where only last rows were read.
    """

    layers: tuple[int, ...]
    last: np.ndarray
    full: np.ndarray | None
    image: np.ndarray | None
    text: np.ndarray | None
    text_share: np.ndarray | None
    tower: np.ndarray | None
    grid: tuple[int, int] | None


class DecoderReader(Strategy):
    """Keep everything, and note what decoder layers attend to.

    Args:
        depth: of the decoder.
        read: the layers to read.
        all_rows: whether to read all rows; else the last one.
        found: where what is read goes, by name and layer.
    """

    keep: Budget = 1.0
    depth: int = field(kw_only=True)
    read: list[int] = field(kw_only=True)
    all_rows: bool = field(kw_only=True)
    found: Any = field(kw_only=True, repr=False)
    scope: Scope = field(default="row", kw_only=True)
    newlines: bool = field(default=True, kw_only=True)
    stage: ClassVar[Stage] = Stage.LAYER
    tower: ClassVar[tuple[TowerSignal, ...] | None] = ()
    patches_only: ClassVar[bool] = True

    def _stage_of(self, layer: int) -> int:
        """The layer before which a layer is read: the coming one, or for the last layer this itself."""
        return min(layer + 1, self.depth - 1)

    def layers(self, depth: int) -> list[int]:
        return sorted({self._stage_of(layer) for layer in self.read})

    def keeps_all(self, stage_index: int) -> bool:
        return False

    def select(self, ctx: Context) -> Keep:
        for layer in self.read:
            if self._stage_of(layer) == ctx.layer:
                self.found["last", layer] = ctx.attention("last", layer).mean((1, 2))[0]
                if self.all_rows:
                    self._read_all(ctx, layer)
        if ctx.stage_index == 0:
            self.found["grid", None] = ctx.grid
            self._read_tower(ctx)
        return Keep(torch.ones_like(ctx.index, dtype=torch.bool), count=ctx.index.shape[1])

    def _read_tower(self, ctx: Context) -> None:
        """Nothing of the tower is read."""

    def _read_all(self, ctx: Context, layer: int) -> None:
        places, length, texts = ctx.places[0], ctx.hidden.shape[1], ctx.text.shape[1]
        row = torch.arange(length, device=places.device)
        groups = {
            "full": row >= places.min(),
            "image": torch.zeros_like(row, dtype=torch.bool).index_fill(0, places, True),
            "text": (row >= length - texts) & (row < length - 1),
        }
        total = {name: torch.zeros_like(places, dtype=torch.float32) for name in groups}
        seen = dict(total)
        for some in row.split(ROWS_AT_ONCE):
            attention, visible = ctx.attention(some, layer)[0].mean(0), ctx.visible(some, layer)[0].float()
            for name, members in groups.items():
                asking = members[some].to(attention)
                total[name] = total[name].to(attention) + asking @ attention
                seen[name] = seen[name].to(attention) + asking @ visible
        for name in groups:
            self.found[name, layer] = total[name] / seen[name]
        of_text = total["text"].sum()
        self.found["text_share", layer] = of_text / (texts - 1) if texts > 1 else torch.full_like(of_text, torch.nan)


class AttentionReader(DecoderReader):
    """Note what the vision tower attends to, too."""

    tower: ClassVar[tuple[TowerSignal, ...] | None] = ("attention",)

    def _read_tower(self, ctx: Context) -> None:
        self.found["tower", None] = ctx.vision_attention().mean(1)[0]


def read_attention(
    model: nn.Module, inputs: Mapping[str, Any], layers: Sequence[int] | None = None, all_rows: bool = True
) -> Reading:
    """Run a prompt with one picture through a model, and read what it attends to, whatever its attention kernel.

    Args:
        model: of a supported family, without a handle.
        inputs: what its processor gave for one prompt.
        layers: decoder layers, `models.readable_layers(model)` unless told.
        all_rows: whether to read all rows; else only that of the last token, which is much less work.

    Raises:
        InputError: several prompts or none with a picture, or a layer that cannot be read.
        UnsupportedModel: the model cannot be read.
    """
    readable = models.readable_layers(model)
    wanted = readable if layers is None else sorted(set(layers))
    if bad := [layer for layer in wanted if layer not in readable]:
        raise InputError(f"the attention of decoder layer {bad[0]} cannot be read; this model shows layers {readable}")
    if (rows := len(inputs["input_ids"])) != 1:
        raise InputError(f"{rows} prompts were given; read them one by one")
    found: dict[tuple[str, int | None], Any] = {}
    reader = AttentionReader if models.reads_tower(model) else DecoderReader
    strategy = reader(depth=models.decoder_depth(model), read=wanted, all_rows=all_rows, found=found)
    with torch.inference_mode(), apply(model, strategy):
        model(**inputs, use_cache=False)
    if ("last", wanted[0]) not in found:
        raise InputError("this prompt has no picture; give one with a picture in it")

    def stacked(name: str) -> np.ndarray | None:
        if (name, wanted[0]) not in found:
            return None
        return torch.stack([found[name, layer].to("cpu", torch.float64) for layer in wanted]).numpy()

    tower, grid = found.get(("tower", None)), found["grid", None]
    return Reading(
        layers=tuple(wanted),
        last=stacked("last"),  # type: ignore[arg-type]
        full=stacked("full"),
        image=stacked("image"),
        text=stacked("text"),
        text_share=stacked("text_share"),
        tower=None if tower is None else tower.to("cpu", torch.float64).numpy(),
        grid=grid[1:] if grid is not None and grid[0] == 1 else None,
    )
