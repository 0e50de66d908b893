"""Tokens by frame against lists: any numbers of tokens per frame, in any order."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from seeless.ops.frames import frame_before, frame_slots, padded_frames

layouts = st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=3)


@given(layouts)
def test_slots_and_padding(frame):
    slot, sizes = frame_slots(torch.tensor(frame))
    largest = max(own.count(t) for own in frame for t in own)
    value = 1.0 + torch.arange(7.0).expand(len(frame), -1)
    padded = padded_frames(value, slot, sizes, -1.0)
    vectors = padded_frames(torch.stack([value, 2 * value], 2), slot, sizes)
    assert sizes.shape[1] == 1 + max(map(max, frame)) and padded.shape[2] == largest
    for unit, own in enumerate(frame):
        assert sizes[unit].tolist() == [own.count(t) for t in range(sizes.shape[1])]
        for t in range(sizes.shape[1]):
            want = [1.0 + i for i, number in enumerate(own) if number == t]
            gap = largest - len(want)
            assert padded[unit, t].tolist() == want + [-1.0] * gap
            assert vectors[unit, t].tolist() == [[w, 2 * w] for w in want] + [[0.0, 0.0]] * gap
        assert len(set(slot[unit].tolist())) == 7


pairs = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=9, max_size=9, unique=True)


@given(st.lists(pairs, min_size=1, max_size=3))
def test_the_frame_before(units):
    got = frame_before(*torch.tensor(units).unbind(2)).tolist()
    for unit, own in zip(units, got, strict=True):
        for (t, p), found in zip(unit, own, strict=True):
            earlier = (t - 1, p) in unit and t > 0 and p >= 0
            assert found == (unit.index((t - 1, p)) if earlier else -1)
