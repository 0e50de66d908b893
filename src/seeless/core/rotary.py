"""Rotary embeddings as decoders hand them to their layers: cos and sin, or complex numbers in one tensor."""

from collections.abc import Callable

import torch

Rotary = torch.Tensor | tuple[torch.Tensor, ...]


def changed(rotary: Rotary, change: Callable[[torch.Tensor], torch.Tensor]) -> Rotary:
    """The same embedding with every tensor changed."""
    return change(rotary) if isinstance(rotary, torch.Tensor) else tuple(map(change, rotary))


def cos_and_sin(rotary: Rotary) -> tuple[torch.Tensor, ...]:
    """Both, `[batch or 1, slots, dim]`, without gradients."""
    parts = (rotary.real, rotary.imag) if isinstance(rotary, torch.Tensor) else rotary
    return tuple(part.detach() for part in parts)


def chunks(rotary: Rotary, count: int) -> list[Rotary]:
    """An embedding of several things at once, one behind the other, taken apart."""
    if isinstance(rotary, torch.Tensor):
        return list(rotary.chunk(count))
    return list(zip(*(part.chunk(count) for part in rotary), strict=True))
