"""`drop_duplicates` against VisPruner's loop written with lists (methods.md, section 6.1)."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seeless.ops import neighbours, similarity
from seeless.ops.similarity import drop_duplicates


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def thinned(features, order, count, step=8, ascending=False):
    """One unit: `features` is a list of vectors, `order` a list of places."""
    if count == 0:
        return []
    listed = list(order)
    while len(listed) > count:
        a, b = listed[0::2], listed[1::2]  # odd lists give a the extra one
        leave = min(step, len(listed) - count, len(a))
        likeness = {i: max(cosine(features[i], features[k]) for k in b) for i in a}
        most_alike_first = sorted(a, key=lambda i: -likeness[i])
        survivors = most_alike_first[leave:]
        listed = (survivors[::-1] if ascending else survivors) + b
    return listed


@pytest.fixture(params=["table", "lists"])
def how(request, monkeypatch):
    """Similarities in a table, and in lists so short that many tokens soon find nobody on theirs."""
    if request.param == "lists":
        monkeypatch.setattr(similarity, "LONG", 0)
        monkeypatch.setattr(neighbours, "COUNT", 3)
        monkeypatch.setattr(neighbours, "AHEAD", 1)


SAME_FIXTURE = [HealthCheck.function_scoped_fixture]  # for all examples


@settings(max_examples=60, deadline=None, suppress_health_check=SAME_FIXTURE)
@given(st.integers(2, 40), st.integers(1, 10), st.booleans(), st.integers(0, 9999), st.data())
def test_any_size(how, listed, step, ascending, seed, data):
    count = data.draw(st.integers(0, listed))
    generator = torch.Generator().manual_seed(seed)
    visual = listed + data.draw(st.integers(0, 5))
    features = torch.randn(1, visual, 5, generator=generator, dtype=torch.float64)
    order = torch.randperm(visual, generator=generator)[None, :listed]
    got = drop_duplicates(features, order, count, step, ascending)
    assert got[0].tolist() == thinned(features[0].tolist(), order[0].tolist(), count, step, ascending)


@pytest.mark.parametrize(("visual", "important", "count"), [(576, 32, 32), (575, 29, 29), (100, 18, 2), (24, 0, 1)])
def test_the_papers_sizes_and_those_the_original_crashes_on(visual, important, count):
    generator = torch.Generator().manual_seed(visual)
    features = torch.randn(1, visual, 8, generator=generator, dtype=torch.float64)
    order = torch.randperm(visual, generator=generator)[None, important:]
    for ascending in (False, True):
        got = drop_duplicates(features, order, count, ascending=ascending)[0].tolist()
        assert len(set(got)) == count
        if visual <= 100:
            assert got == thinned(features[0].tolist(), order[0].tolist(), count, ascending=ascending)


def test_the_order_of_the_survivors_matters():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1, 40, 4, generator=generator, dtype=torch.float64)
    order = torch.arange(40)[None]
    kept = [set(drop_duplicates(features, order, 8, 4, ascending)[0].tolist()) for ascending in (False, True)]
    assert kept[0] != kept[1]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(2, 20), st.booleans(), st.integers(0, 999), st.data())
def test_units_do_not_see_each_other(units, listed, ascending, seed, data):
    count = data.draw(st.integers(0, listed))
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(units, listed, 5, generator=generator, dtype=torch.float64)
    order = torch.stack([torch.randperm(listed, generator=generator) for _ in range(units)])
    together = drop_duplicates(features, order, count, 3, ascending)
    assert together.shape == (units, count)
    for unit in range(units):
        alone = drop_duplicates(features[unit : unit + 1], order[unit : unit + 1], count, 3, ascending)
        assert torch.equal(together[unit : unit + 1], alone)


@settings(max_examples=30, deadline=None, suppress_health_check=SAME_FIXTURE)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.data())
def test_of_equal_likeness_the_earlier_leaves_first(how, kinds, data):
    """One-hot features: likeness is exactly 0 or 1, so nearly everything is a tie."""
    count = data.draw(st.integers(1, len(kinds)))
    features = torch.eye(4, dtype=torch.float64)[kinds][None]
    order = torch.arange(len(kinds))[None]
    got = drop_duplicates(features, order, count, 3)
    assert got[0].tolist() == thinned(features[0].tolist(), list(range(len(kinds))), count, 3)


@pytest.mark.parametrize(("table", "piece"), [(0, 2**24), (0, 50), (2**26, 50)])
def test_long_lists_are_thinned_in_pieces_alike(monkeypatch, table, piece):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(3, 41, 5, generator=generator, dtype=torch.float64)
    order = torch.stack([torch.randperm(41, generator=generator) for _ in range(3)])
    want = drop_duplicates(features, order, 7, 4)
    monkeypatch.setattr(similarity, "TABLE", table)
    monkeypatch.setattr(similarity, "PIECE", piece)
    assert torch.equal(drop_duplicates(features, order, 7, 4), want)


# Long lists on a CPU.


def kinds_of(draw, visual, generator):
    """Features `[visual, 5]` of which some are equal, some nearly, and some stand alone."""
    features = torch.randn(visual, 5, generator=generator)
    for _ in range(draw(st.integers(0, 3))):
        twins = torch.randperm(visual, generator=generator)[: draw(st.integers(2, visual))]
        near = draw(st.sampled_from([0.0, 0.0, 1e-7, 1e-3]))
        features[twins] = features[twins[0]] + near * torch.randn(len(twins), 5, generator=generator)
    return features


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 60), st.integers(1, 10), st.booleans(), st.integers(0, 9999), st.integers(1, 6), st.data())
def test_lists_of_neighbours_leave_what_a_table_leaves(visual, step, ascending, seed, size, data):
    """Whether lists are so short that most of their tokens soon find nobody on them, or longer than all tokens."""
    generator = torch.Generator().manual_seed(seed)
    features = kinds_of(data.draw, visual, generator)
    listed = data.draw(st.integers(1, visual))
    count = data.draw(st.integers(0, listed))
    order = torch.randperm(visual, generator=generator)[None, :listed]
    want = drop_duplicates(features[None], order, count, step, ascending)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "LONG", 0)
        patch.setattr(neighbours, "COUNT", size)
        patch.setattr(neighbours, "AHEAD", min(2, size))
        patch.setattr(neighbours, "PIECE", data.draw(st.sampled_from([1, 100, 2**22])))
        assert torch.equal(drop_duplicates(features[None], order, count, step, ascending), want)


def test_a_long_list_of_several_units():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 1100, 6, generator=generator)
    features[:, 100:200] = features[:, :1]
    order = torch.stack([torch.randperm(1100, generator=generator)[:1030] for _ in range(2)])
    got = drop_duplicates(features, order, 130)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "LONG", 2000)
        assert torch.equal(drop_duplicates(features, order, 130), got)
