"""Tokens of a video by frame, where frames may have unequal numbers of tokens."""

import torch
import torch.nn.functional as F


def frame_slots(frame: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each token stands if every frame is padded to the size of the largest.

    Args:
        frame: `[units, visual]`, number of each token's frame, from 0.

    Returns:
        `slot` `[units, visual]`: frame * largest + place within the frame; tokens of a frame keep their order.
        `sizes` `[units, frames]`: tokens of every frame, 0 for one without.

    >>> slot, sizes = frame_slots(torch.tensor([[0, 0, 0, 1, 1, 0]]))
    >>> slot.tolist(), sizes.tolist()
    ([[0, 1, 2, 4, 5, 3]], [[4, 2]])
    """
    sizes = F.one_hot(frame).sum(1)
    order = frame.argsort(dim=1, stable=True).argsort(dim=1)
    first = sizes.cumsum(1) - sizes
    return frame * sizes.max() + order - first.gather(1, frame), sizes


def padded_frames(values: torch.Tensor, slot: torch.Tensor, sizes: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """`values` `[units, visual, ...]` by frame, `[units, frames, largest, ...]`; `fill` where a frame has no token.

    `slot` and `sizes` are those of `frame_slots`.

    >>> slot, sizes = frame_slots(torch.tensor([[0, 0, 1]]))
    >>> padded_frames(torch.tensor([[5.0, 6.0, 7.0]]), slot, sizes).tolist()
    [[[5.0, 6.0], [7.0, 0.0]]]
    """
    units, frames = sizes.shape
    index = slot.view(*slot.shape, *[1] * (values.ndim - 2)).expand_as(values)
    padded = values.new_full((units, frames * int(sizes.max()), *values.shape[2:]), fill)
    return padded.scatter(1, index, values).view(units, frames, -1, *values.shape[2:])


def frame_before(frame: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """Which token shows the same place in the frame before, `[units, visual]`; -1 where there is none.

    Args:
        frame: `[units, visual]`, number of each token's frame, from 0; -1 for tokens of no frame.
        patch: `[units, visual]`, its place in the frame; -1 for tokens that show none.

    >>> frame_before(torch.tensor([[0, 0, 1, 1, 2, 2]]), torch.tensor([[0, 1, 1, -1, 0, 1]])).tolist()
    [[-1, -1, 1, -1, -1, 2]]
    """
    shown = (frame >= 0) & (patch >= 0)
    size = patch.max().clamp(min=0) + 1
    place = torch.where(shown, (frame + 1) * size + patch, 0)  # below `size`: the frame before the first
    number = torch.arange(frame.shape[1], device=frame.device).expand_as(frame)
    at = torch.full((len(frame), int(place.max()) + 1), -1, device=frame.device).scatter(1, place, number)
    at[:, :size] = -1
    return torch.where(shown, at.gather(1, (place - size).clamp(min=0)), -1)
