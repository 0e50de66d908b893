"""What was kept where, and what it saved. Lazy: nothing is fetched or counted until it is read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from seeless.errors import InputError
from seeless.flops import Cost

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class StageReport:
    """One stage of one prefill.

    Args:
        layer: before which the tokens left; 0 is the entry.
        strategy: its name.
        n_before: visual tokens per row, before the stage.
        n_after: the same after it.
        signal: which attention of the vision tower ranked the tokens; None if none did.
        attention: decoder layers whose attention or keys were asked for, and the layer that each was read in: the
            nearest one before where the layer itself has no attention.
        find: gives `kept` and `scores`.
    """

    layer: int
    strategy: str
    n_before: list[int]
    n_after: list[int]
    signal: str | None
    attention: dict[int, int]
    find: Callable[[], tuple[list[torch.Tensor], list[torch.Tensor] | None]] = field(repr=False)

    @cached_property
    def _found(self) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        return self.find()

    @property
    def kept(self) -> list[torch.Tensor]:
        """One LongTensor per batch row, on the CPU: indices into the row's original visual tokens, ascending."""
        return self._found[0]

    @property
    def scores(self) -> list[torch.Tensor] | None:
        """One tensor per row, on the CPU, for the tokens there were before the stage (nan: not ranked), tokens that
        were added earlier at the end; or None."""
        return self._found[1]

    def to_dict(self) -> dict[str, Any]:
        scores = None if self.scores is None else [[None if v != v else v for v in s.tolist()] for s in self.scores]
        return {
            "layer": self.layer,
            "strategy": self.strategy,
            "kept": [k.tolist() for k in self.kept],
            "scores": scores,
            "n_before": self.n_before,
            "n_after": self.n_after,
            "signal": self.signal,
            "attention": {str(layer): read for layer, read in self.attention.items()},
        }


class Facts(Protocol):
    """What a `Report` counts when it is asked."""

    def flops(self) -> tuple[Cost, Cost]: ...
    def row_flops(self) -> list[tuple[int, int]]: ...
    def kv_bytes(self) -> tuple[int, int]: ...
    def boxes(self) -> list[list[torch.Tensor]]: ...
    def picture(self, row: int, number: int, aspect: float) -> tuple[torch.Tensor, torch.Tensor]: ...
    def centre_crop(self) -> bool: ...


@dataclass(frozen=True, eq=False)
class Report:
    """One prefill.

    Args:
        stages: in the order of the flow.
        visual: per decoder layer, the visual tokens each row's layer saw.
        text: other tokens of each row.
        facts: what the other properties are counted from.
    """

    stages: list[StageReport]
    visual: list[list[int]]
    text: list[int]
    facts: Facts = field(repr=False)

    @cached_property
    def _flops(self) -> tuple[Cost, Cost]:
        return self.facts.flops()

    @property
    def flops_before(self) -> Cost:
        """Operations without reduction."""
        return self._flops[0]

    @property
    def flops_after(self) -> Cost:
        """Operations with it."""
        return self._flops[1]

    @cached_property
    def row_flops(self) -> list[tuple[int, int]]:
        """Per row, both totals if it were alone; a picture that several rows show (beams) counts for each. They add up
        to the totals but for towers that run the pictures of all rows as one sequence (Pixtral)."""
        return self.facts.row_flops()

    @cached_property
    def _kv_bytes(self) -> tuple[int, int]:
        return self.facts.kv_bytes()

    @property
    def kv_bytes_before(self) -> int:
        """Bytes of the KV cache after the prefill without reduction (0 without a cache)."""
        return self._kv_bytes[0]

    @property
    def kv_bytes_after(self) -> int:
        """Bytes of the KV cache after the prefill (0 without a cache)."""
        return self._kv_bytes[1]

    @cached_property
    def boxes(self) -> list[list[torch.Tensor]]:
        """Per row and image, `[visual, 4]` left, top, right, bottom of each token in the picture as the tower saw it,
        in 0..1; nan for tokens that show no patch, and for those of tiles whose grid only the picture's shape tells
        (InternVL); `overlay` knows it. Crops that stand apart (SmolVLM, Idefics3, Gemma 3) are images of their own."""
        return self.facts.boxes()

    @property
    def centre_crop(self) -> bool:
        """Whether the tower probably saw only the centre square of the original, as CLIP's processor cuts it."""
        return self.facts.centre_crop()

    @property
    def n_before(self) -> list[int]:
        """Visual tokens of each row when they entered."""
        return self.stages[0].n_before if self.stages else self.visual[0]

    @property
    def n_after(self) -> list[int]:
        """Visual tokens of each row in the last layer."""
        return self.stages[-1].n_after if self.stages else self.visual[-1]

    @property
    def average_tokens(self) -> float:
        """Visual tokens per decoder layer and row with images: the fair number to compare methods by."""
        rows = sum(n > 0 for n in self.n_before)
        return sum(map(sum, self.visual)) / len(self.visual) / max(1, rows)

    @property
    def share(self) -> float:
        """`average_tokens` as a share of the original visual tokens."""
        return sum(map(sum, self.visual)) / len(self.visual) / max(1, sum(self.n_before))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "stages": [stage.to_dict() for stage in self.stages],
            "visual_tokens_per_layer": self.visual,
            "text_tokens": self.text,
            "average_tokens": self.average_tokens,
            "share": self.share,
            "flops_before": self.flops_before.to_dict(),
            "flops_after": self.flops_after.to_dict(),
            "kv_bytes_before": self.kv_bytes_before,
            "kv_bytes_after": self.kv_bytes_after,
        }

    def __str__(self) -> str:
        steps = []
        for stage in self.stages:
            where = "at the entry" if stage.layer == 0 else f"from layer {stage.layer}"
            steps.append(f"{_span(stage.n_before)} -> {_span(stage.n_after)} {where} ({stage.strategy})")
        average = f"{self.average_tokens:.0f} visual tokens per layer on average ({100 * self.share:.0f} %)"
        before, after = self.flops_before, self.flops_after
        signals = dict.fromkeys(f"{stage.strategy} ranks by {stage.signal}" for stage in self.stages if stage.signal)
        others = dict.fromkeys(
            f"{stage.strategy} before layer {stage.layer} reads the attention of layer {read}: layer {layer} has none"
            for stage in self.stages
            for layer, read in stage.attention.items()
            if layer != read
        )
        lines = [
            f"{', '.join(steps) or 'nothing dropped'} · {average}",
            *signals,
            *others,
            f"decoder {before.decoder / 1e9:.3g} -> {after.decoder / 1e9:.3g} GFLOPs, "
            f"whole prefill {before.total / 1e9:.3g} -> {after.total / 1e9:.3g} GFLOPs "
            f"(tower {after.tower / 1e9:.3g}, projector {after.projector / 1e9:.3g}, "
            f"lm_head {after.lm_head / 1e9:.3g})",
        ]
        if self.kv_bytes_before:
            lines.append(f"KV cache {self.kv_bytes_before / 2**20:.3g} -> {self.kv_bytes_after / 2**20:.3g} MiB")
        return "\n".join(lines)

    def overlay(
        self, image: "Image", row: int = 0, picture: int = 0, stage: int = -1, centre_crop: bool | None = None
    ) -> "Image":
        """`image` with the patches that were dropped darkened.

        Args:
            image: the picture that was shown, a PIL image.
            row: which row of the batch it was in.
            picture: which of the row's pictures it was; the crops that a processor cut it into are no pictures of their
                own. Of a video all frames are drawn on one.
            stage: after which stage, the last unless told.
            centre_crop: whether the processor cut out the centre square; by default what the model's kind suggests.

        Raises:
            MissingExtra: Pillow is not installed.
            InputError: there is no such picture, or it cannot be told which crops are of one picture.
        """
        from seeless.overlay import draw_overlay

        cut = self.centre_crop if centre_crop is None else centre_crop
        kept = torch.full((sum(map(len, self.boxes[row])),), not self.stages)
        if self.stages:
            kept[self.stages[stage].kept[row].cpu()] = True
        return draw_overlay(image, partial(self.facts.picture, row, picture), kept, cut)

    def heat_map(
        self, image: "Image", row: int = 0, picture: int = 0, stage: int = -1, centre_crop: bool | None = None
    ) -> "Image":
        """`image` with its patches coloured by the scores of a stage: from blue, the lowest of the row, over green to
        yellow, the highest, by their places in the ranking (equal scores share the mean of theirs). Patches that were
        not ranked, or had left before, are dark. Arguments as for `overlay`.

        Raises:
            MissingExtra: Pillow is not installed.
            InputError: the stage has no scores; there is no such picture, or it cannot be told which crops are of one.
        """
        from seeless.overlay import draw_heat

        cut = self.centre_crop if centre_crop is None else centre_crop
        return draw_heat(image, partial(self.facts.picture, row, picture), self._ranks(row, stage), cut)

    def _ranks(self, row: int, stage: int) -> torch.Tensor:
        """Per original visual token of a row, the share of the others that a stage ranked below it; nan: not ranked."""
        given = self.stages[stage].scores if self.stages else None
        if given is None:
            name = self.stages[stage].strategy if self.stages else "a method that drops nothing"
            raise InputError(f"{name} gives its tokens no scores, so there is no heat map; overlay shows what was kept")
        number = range(len(self.stages))[stage]
        there = self.stages[number - 1].kept[row] if number else torch.arange(self.n_before[row])
        scores = given[row][: len(there)].double()  # behind them, tokens that were added
        ranks = torch.full((self.n_before[row],), torch.nan, dtype=torch.float64)
        ranked, values = there[~scores.isnan()], scores[~scores.isnan()]
        in_order = values.sort().values
        below, up_to = torch.searchsorted(in_order, values), torch.searchsorted(in_order, values, right=True)
        ranks[ranked] = (below + up_to - 1).double() / 2 / max(1, len(values) - 1)
        return ranks


def _span(counts: list[int]) -> str:
    """`576`, or `288-576` where rows differ; rows without images do not count."""
    seen = [n for n in counts if n > 0] or [0]
    return str(seen[0]) if min(seen) == max(seen) else f"{min(seen)}-{max(seen)}"
