"""What a `PatchContext` answers for pictures of one size, before a layer of the vision tower."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from seeless.core.capture import Call
from seeless.core.tower_attention import AttentionTap, in_one
from seeless.errors import InputError

if TYPE_CHECKING:
    from seeless.core.leaving import Leaving


@dataclass
class Watched:
    """What the attention of the layer before made: rows of class tokens, and values, `[slots, heads, dim]` in parts."""

    tap: AttentionTap
    values: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, layer: int) -> Watched:
        return cls(AttentionTap(layer, True))

    def see(self, call: Call) -> None:
        assert call.value is not None
        self.values.append(call.value.transpose(1, 2).flatten(0, 1))
        self.tap.see(call)


class PatchAnswers:
    """Answers a `PatchContext`.

    Args:
        run: the tower's run.
        flat: `[slots, width]`, what is left of all rows.
        places: `[pictures, tokens]`, of the pictures' tokens among all that are left.
        pictures: their numbers.
        seats: `[tokens, patches]`, where in `flat` the patches of every token that is left are.
        lead: where in it class tokens are.
        sizes: slots that are left of every picture, class token included, where there are class tokens.
    """

    def __init__(
        self,
        run: Leaving,
        flat: torch.Tensor,
        places: torch.Tensor,
        pictures: list[int],
        seats: torch.Tensor,
        lead: torch.Tensor,
        sizes: list[int],
    ) -> None:
        self.run, self.flat, self.pictures, self.lead, self.sizes = run, flat, pictures, lead, sizes
        self.seats = seats[places]
        self.tokens = run.alive[places]

    def _tokens(self, of_slots: torch.Tensor) -> torch.Tensor:
        """`[pictures, tokens, ...]`, the mean over the patches of every token."""
        own = of_slots[self.seats.to(of_slots.device)]
        return own[:, :, 0] if own.shape[2] == 1 else own.mean(2)

    def hidden(self) -> torch.Tensor:
        return self._tokens(self.flat)

    @cached_property
    def _watched(self) -> Watched:
        if self.run.watched is None:
            raise InputError(
                f"{self.run.strategy.name} asks for the attention of the tower layer before, which is only kept where "
                'there is one and the class says inside = ("class_attention", "values")'
            )
        return self.run.watched

    def class_attention(self) -> torch.Tensor:
        return self._tokens(self._watched.tap.attention(self.sizes, None)).transpose(1, 2)

    @cached_property
    def _values(self) -> torch.Tensor:
        return in_one(self._watched.values)

    def values(self) -> torch.Tensor:
        return self._tokens(self._values).transpose(1, 2)

    def class_value(self) -> torch.Tensor:
        return self._values[self.lead.to(self._values.device)][self.pictures]

    def pixels(self) -> torch.Tensor:
        run = self.run
        if run.pixels is None:
            raise InputError(
                f'{run.strategy.name} asks for pixels, which are only kept where the class says inside = ("pixels",)'
            )
        patches = _patches_of(run.pixels.detach(), run)
        places = run.place.to(self.tokens.device)[self.tokens].to(patches.device)
        return patches[places]


def _patches_of(pixels: torch.Tensor, run: Leaving) -> torch.Tensor:
    """`[patches of all pictures, channels, frames, height, width]`, in the order of the pictures' patches."""
    config = run.view.tower(run.kind).config
    side = config.patch_size[0] if isinstance(config.patch_size, list | tuple) else config.patch_size
    if pixels.ndim == 2:  # a patch per row
        frames = getattr(config, "temporal_patch_size", 1)
        return pixels.view(len(pixels), -1, frames, side, side)
    if pixels.ndim > 2 and pixels.shape[-2:] == (side, side):
        return pixels.reshape(-1, pixels.shape[-3], 1, side, side)
    if pixels.ndim == 4 and len(pixels) == len(run.grids):  # a picture per row, at the upper left of its canvas
        cut = [
            torch.nn.functional.unfold(own[None, :, : height * side, : width * side], side, stride=side)[0].T
            for own, (height, width) in zip(pixels, run.grids, strict=True)
        ]
        return torch.cat(cut).view(-1, pixels.shape[1], 1, side, side)
    raise InputError(
        f"the vision tower took pixels of shape {list(pixels.shape)}, of which seeless does not know the patches; use "
        "a strategy that does not read pixels"
    )
