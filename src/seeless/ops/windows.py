"""Stretches of successive frames that belong together. A stretch is known by its first frame.

`first` `[units, frames]` is, for every frame, the number of the first frame of its stretch.
"""

import torch

from seeless.ops.ties import ranking


def segments(likeness: torch.Tensor, threshold: float, least: int) -> torch.Tensor:
    """Cut a video where a frame is unlike the next: below `threshold`, and at the lowest places until there are `least`
    segments (FastVID, arXiv 2503.11187, DySeg; FlashVID, arXiv 2602.08024). Ties are cut at the earlier frame.

    Args:
        likeness: `[units, frames - 1]`, of every frame to the next, a cosine.
        least: of segments; all frames apart where there are fewer.

    Returns:
        `first`.

    >>> segments(torch.tensor([[0.99, 0.85, 0.97, 0.95, 0.98]]), 0.9, 3).tolist()
    [[0, 0, 2, 2, 4, 4]]
    """
    rank = ranking(-likeness, size=1).argsort(dim=1)
    return _first_of((likeness < threshold) | (rank < least - 1))


def static_windows(above: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a video into windows so that as many tokens as possible repeat within them (HoliTom, arXiv 2505.21334).

    A window from frame a to b saves (b - a) tokens at every place where `above` is True from a to b - 1. Dynamic
    programming finds the partition that saves the most. Of equals a frame alone goes before a window that ends with it,
    and a shorter window before a longer one.

    Args:
        above: `[units, frames - 1, places]` bool, whether a frame resembles the next at a place.
        longest: frames of a window at most.

    Returns:
        `first`, and `[units]`, the tokens saved.

    >>> rows = [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    >>> first, saved = static_windows(torch.tensor([rows]).bool(), 1024)
    >>> first.tolist(), saved.tolist()
    ([[0, 0, 0, 3, 3]], [8])
    """
    units, frames, device = len(above), above.shape[1] + 1, above.device
    best = [torch.zeros(units, dtype=torch.long, device=device)]  # of the frames before 0, 1, 2, ...
    start = []
    lasting = above[:, :0]  # `[units, begin, places]`: alike from frame `begin` on to this one
    for last in range(frames):
        begin = max(0, last + 1 - longest)
        if last:
            lasting = torch.cat([lasting, above.new_ones(units, 1, above.shape[2])], 1) & above[:, last - 1 : last]
        width = last - torch.arange(begin, last, device=device)
        saves = torch.stack(best[begin : last + 1], 1)
        saves[:, :-1] += width * lasting[:, begin:].sum(2)
        both = (saves * frames + torch.arange(begin, last + 1, device=device)).amax(1)  # of equals the shortest
        best.append(both // frames)
        start.append(both % frames)
    first = torch.empty(units, frames, dtype=torch.long, device=device)
    begin_of = torch.full_like(best[0], frames)
    for frame in range(frames - 1, -1, -1):
        begin_of = torch.where(begin_of > frame, start[frame], begin_of)
        first[:, frame] = begin_of
    return first, best[-1]


def joined_runs(label: torch.Tensor) -> torch.Tensor:
    """Make windows of a video's frames, of which each has the label of a cluster (PruneVid, arXiv 2412.16117).

    A cluster keeps its longest runs of frames, all of them if several are, and none if none is longer than one frame.
    A stretch of frames between what is kept joins the neighbouring run that is longer then, stretches before it having
    joined theirs; the one before it if both are. Runs of one label are a window.

    Args:
        label: `[units, frames]`, from 0 to below the number of frames.

    Returns:
        `first`.

    >>> joined_runs(torch.tensor([[0, 0, 1, 0, 2, 2, 2, 1, 3, 3], [0, 0, 1, 1, 0, 0, 0, 1, 2, 3]])).tolist()
    [[0, 0, 2, 2, 2, 2, 2, 2, 8, 8], [0, 0, 0, 0, 4, 4, 4, 4, 4, 4]]
    """
    frames = label.shape[1]
    length = lengths(_first_of(label[:, 1:] != label[:, :-1]))
    longest = torch.zeros_like(label).scatter_reduce(1, label, length, "amax").gather(1, label)
    stays = (length == longest) & (length > 1)
    # Behind a frame, the label and length of the next run that stays; -1 and 0 if there is none.
    after = [(torch.full_like(label[:, 0], -1), torch.zeros_like(label[:, 0]))]
    for frame in range(frames - 1, 0, -1):
        later, size = after[-1]
        there = stays[:, frame]
        after.append((torch.where(there, label[:, frame], later), torch.where(there, length[:, frame], size)))
    now, run = torch.full_like(label[:, 0], -1), torch.zeros_like(label[:, 0])
    within = torch.zeros_like(stays[:, 0])  # a stretch that was decided upon
    joined = []
    for frame in range(frames):
        later, size = after[frames - 1 - frame]
        joins = torch.where((run > 0) & (run >= size), now, torch.where(size > 0, later, 0))
        own = torch.where(stays[:, frame], label[:, frame], torch.where(within, now, joins))
        run, now, within = torch.where(own == now, run + 1, 1), own, ~stays[:, frame]
        joined.append(own)
    whole = torch.stack(joined, 1)
    return _first_of(whole[:, 1:] != whole[:, :-1])


def lengths(first: torch.Tensor) -> torch.Tensor:
    """Frames of every frame's stretch, `[units, frames]`.

    >>> lengths(torch.tensor([[0, 0, 2, 2, 2]])).tolist()
    [[2, 2, 3, 3, 3]]
    """
    return torch.zeros_like(first).scatter_add(1, first, torch.ones_like(first)).gather(1, first)


def sums(values: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """The sum of `values` `[units, frames, ...]` over every stretch, at its first frame; zeros at the others."""
    own = (first[:, :, None] == torch.arange(first.shape[1], device=first.device)).to(values.dtype)
    return (own.transpose(1, 2) @ values.flatten(2)).view_as(values)


def of_stretch(values: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """`values` `[units, frames, ...]` at the first frame of every frame's stretch."""
    return values.gather(1, first.view(*first.shape, *[1] * (values.ndim - 2)).expand_as(values))


def _first_of(cut: torch.Tensor) -> torch.Tensor:
    """`first`, from `[units, frames - 1]`, whether the next frame begins a stretch."""
    place = torch.arange(1, cut.shape[1] + 1, device=cut.device)
    return torch.nn.functional.pad(place * cut, (1, 0)).cummax(1).values
