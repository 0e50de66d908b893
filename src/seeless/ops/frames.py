"""Tokens of a video by frame, where frames may have unequal numbers of tokens."""

import torch


def frame_slots(
    frame: torch.Tensor, frames: int | None = None, largest: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each token stands if every frame is padded to the size of the largest.

    Args:
        frame: `[units, visual]`, number of each token's frame, from 0.
        frames, largest: how many frames, and tokens of the largest, there are, or more; None counts them, for which a
            GPU waits.

    Returns:
        `slot` `[units, visual]`: frame * largest + place within the frame; tokens of a frame keep their order.
        `sizes` `[units, frames]`: tokens of every frame, 0 for one without.

    >>> slot, sizes = frame_slots(torch.tensor([[0, 0, 0, 1, 1, 0]]))
    >>> slot.tolist(), sizes.tolist()
    ([[0, 1, 2, 4, 5, 3]], [[4, 2]])
    """
    frames = int(frame.max()) + 1 if frames is None else frames
    sizes = frame.new_zeros(len(frame), frames).scatter_add(1, frame, torch.ones_like(frame))
    largest = int(sizes.max()) if largest is None else largest
    order = frame.argsort(dim=1, stable=True).argsort(dim=1)
    first = sizes.cumsum(1) - sizes
    return frame * largest + order - first.gather(1, frame), sizes


def padded_frames(
    values: torch.Tensor, slot: torch.Tensor, sizes: torch.Tensor, fill: float = 0.0, largest: int | None = None
) -> torch.Tensor:
    """`values` `[units, visual, ...]` by frame, `[units, frames, largest, ...]`; `fill` where a frame has no token.

    `slot` and `sizes` are those of `frame_slots`, made with the same `largest`.

    >>> slot, sizes = frame_slots(torch.tensor([[0, 0, 1]]))
    >>> padded_frames(torch.tensor([[5.0, 6.0, 7.0]]), slot, sizes).tolist()
    [[[5.0, 6.0], [7.0, 0.0]]]
    """
    units, frames = sizes.shape
    index = slot.view(*slot.shape, *[1] * (values.ndim - 2)).expand_as(values)
    largest = int(sizes.max()) if largest is None else largest
    padded = values.new_full((units, frames * largest, *values.shape[2:]), fill)
    return padded.scatter(1, index, values).view(units, frames, -1, *values.shape[2:])


def frame_before(
    frame: torch.Tensor, patch: torch.Tensor, frames: int | None = None, largest: int | None = None
) -> torch.Tensor:
    """Which token shows the same place in the frame before, `[units, visual]`; -1 where there is none.

    Args:
        frame: `[units, visual]`, number of each token's frame, from 0; -1 for tokens of no frame.
        patch: `[units, visual]`, its place in the frame; -1 for tokens that show none.
        frames, largest: how many frames there are, and places in a frame, or more; None looks, for which a GPU waits.

    >>> frame_before(torch.tensor([[0, 0, 1, 1, 2, 2]]), torch.tensor([[0, 1, 1, -1, 0, 1]])).tolist()
    [[-1, -1, 1, -1, -1, 2]]
    """
    shown = (frame >= 0) & (patch >= 0)
    size = max(0, int(patch.max())) + 1 if largest is None else largest
    count = int(frame.max()) + 1 if frames is None else frames
    place = torch.where(shown, (frame + 1) * size + patch, 0)  # below `size`: the frame before the first
    number = torch.arange(frame.shape[1], device=frame.device).expand_as(frame)
    at = torch.full((len(frame), (max(0, count) + 1) * size), -1, device=frame.device).scatter(1, place, number)
    at[:, :size] = -1
    return torch.where(shown, at.gather(1, (place - size).clamp(min=0)), -1)
