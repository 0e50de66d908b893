"""`TokenRow`: which token stands where after some have left, against plain lists."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seeless.core.positions import TokenRow, gather_tokens


class PlainRow:
    """One row as a list of columns and, per column, by how much its position was lowered."""

    def __init__(self, valid):
        self.columns = [column for column, ok in enumerate(valid) if ok]
        self.lowered = dict.fromkeys(self.columns, 0)
        self.after = 0

    def cut(self, staying, renumber):
        gone = 0
        for column in self.columns:
            if column not in staying:
                gone += 1
            elif renumber:
                self.lowered[column] += gone
        self.after += gone if renumber else 0
        self.columns = [column for column in self.columns if column in staying]


@st.composite
def histories(draw):
    """A ragged batch and up to three cuts that leave every row at least one token."""
    batch, length = draw(st.integers(1, 4)), draw(st.integers(1, 10))
    valid = []
    for _ in range(batch):
        gap = draw(st.integers(0, length - 1))
        left = draw(st.booleans())
        valid.append([(i >= gap) if left else (i < length - gap) for i in range(length)])
    left_over = [[i for i, ok in enumerate(row) if ok] for row in valid]
    cuts = []
    for _ in range(draw(st.integers(1, 3))):
        left_over = [sorted(draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))) for columns in left_over]
        cuts.append((left_over, draw(st.booleans())))
    return length, valid, cuts


@settings(max_examples=150, deadline=None)
@given(histories(), st.booleans())
def test_cuts(history, mask_even_if_all_valid):
    length, valid, cuts = history
    mask = torch.tensor(valid)
    lengths = [sum(own) for own in valid]
    row = TokenRow.full(lengths, length, None if mask.all() and not mask_even_if_all_valid else mask, mask.device)
    plain = [PlainRow(own) for own in valid]
    x = torch.arange(length).expand(len(valid), -1)[..., None]  # every token carries its own column
    check(row, plain, x, length)
    for staying, renumber in cuts:
        stays = torch.zeros_like(row.column, dtype=torch.bool)
        for i, columns in enumerate(staying):
            for slot, column in enumerate(row.column[i].tolist()):
                stays[i, slot] = column in columns and (row.valid is None or bool(row.valid[i, slot]))
            plain[i].cut(columns, renumber)
        order, row = row.cut(stays, [len(own) for own in staying], renumber)
        x = gather_tokens(x, order)
        check(row, plain, x, length)


def check(row, plain, x, length):
    assert torch.equal(x[..., 0], row.column)
    longest = max(len(own.columns) for own in plain)
    full = row.column.shape[1] == length
    assert full or row.column.shape[1] == longest
    if row.valid is None:
        assert all(len(own.columns) == row.column.shape[1] for own in plain)
    slot_of, restored = row.slot_of(length), row.restore(x, length)[..., 0]
    for i, own in enumerate(plain):
        slots = list(range(row.column.shape[1])) if row.valid is None else row.valid[i].nonzero()[:, 0].tolist()
        assert row.column[i, slots].tolist() == own.columns  # in order, padding on the left once something was cut
        if not full:
            assert slots == list(range(row.column.shape[1] - len(own.columns), row.column.shape[1]))
        lowered = [0] * len(slots) if row.moved is None else (-row.moved[i, slots]).tolist()
        assert row.lengths[i] == len(own.columns) and lowered == [own.lowered[column] for column in own.columns]
        assert (0 if row.moved_after is None else -int(row.moved_after[i])) == own.after
        for column in range(length):
            expected = slots[own.columns.index(column)] if column in own.columns else -1
            assert int(slot_of[i, column]) == expected
            before = [kept for kept in own.columns if kept <= column]
            assert int(restored[i, column]) == (before[-1] if before else own.columns[0])


def test_a_shared_row_is_spread_over_the_batch():
    x = torch.arange(4.0).view(1, 4, 1)
    assert gather_tokens(x, torch.tensor([[0, 2], [3, 1]]))[..., 0].tolist() == [[0, 2], [3, 1]]


def test_a_token_added_later_is_not_here():
    """Also where slots were asked for by column before, when there were fewer tokens."""
    row = TokenRow.full([5], 5, None, torch.device("cpu"))
    row = row.cut(torch.tensor([[True, False, True, True, True]]), [4], False)[1]
    assert row.slot_of(5).tolist() == [[0, -1, 1, 2, 3]]
    later = replace(row, token=torch.tensor([[0, 6, 5, 4]]), _slot_of=None)
    order, held = row.trimmed_to(later, [True], 7)
    assert order.tolist() == [[0, -1, -1, 3]] and held is later
