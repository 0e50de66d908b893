"""DivPrune: max-min farthest points against lists, the first pick, ties and duplicates."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import fake_context, kept
from seeless.ops.farthest import farthest_points
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs


def distance(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def chosen_one_by_one(features, count):
    """methods.md, section 9, with lists; a chosen token is no candidate any more."""
    places = range(len(features))
    apart = [[distance(a, b) for b in features] for a in features]
    column = [sorted(apart[j][i] for j in places)[1] if len(features) > 1 else 0 for i in places]
    chosen = [max(places, key=lambda i: (column[i], -i))]
    while len(chosen) < count:
        rest = [j for j in places if j not in chosen]
        chosen.append(max(rest, key=lambda j: (min(apart[i][j] for i in chosen), -j)))
    return chosen


def embeds(units, visual, seed, dim=5, dtype=torch.float64):
    return torch.randn(units, visual, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 25), st.integers(0, 9999), st.data())
def test_any_size(units, visual, seed, data):
    count = data.draw(st.integers(1, visual))
    features = embeds(units, visual, seed)
    got = farthest_points(features, count)
    decision = sl.DivPrune(keep=count).reduce(fake_context(count, units, visual, embeds=features))
    for unit in range(units):
        want = chosen_one_by_one(features[unit].tolist(), count)
        assert got[unit].tolist() == want
        assert kept(decision)[unit] == sorted(want)
        assert torch.equal(farthest_points(features[unit : unit + 1], count)[0], got[unit])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("visual", [2, 9, 33])
def test_of_two_mutual_neighbours_the_first_is_chosen(visual, dtype):
    """Two tokens roughly point one way, the others all closely another: the two are farthest out, by the same."""
    for seed in range(20):
        features = embeds(5, visual, seed, dim=64, dtype=dtype) * 1e-3
        features[..., 0] += 1
        pair = torch.randperm(visual, generator=torch.Generator().manual_seed(seed))[:2]
        features[:, pair] = 0.05 * embeds(5, 2, seed + 100, dim=64, dtype=dtype)
        features[:, pair, 0] -= 1
        assert farthest_points(features, 1)[:, 0].tolist() == [int(pair.min())] * 5


def test_a_longer_choice_begins_with_the_shorter_one():
    features = embeds(2, 30, 0)
    whole = farthest_points(features, 30)
    assert all(torch.equal(farthest_points(features, count), whole[:, :count]) for count in range(1, 30))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.booleans(), st.data())
def test_equal_tokens_are_never_chosen_twice(kinds, zeros, data):
    """One-hot features: every distance is exactly 0 or 1, so nearly every choice is a tie."""
    count = data.draw(st.integers(1, len(kinds)))
    features = torch.eye(4, dtype=torch.float64)[kinds][None]
    got = farthest_points(features, count)[0].tolist()
    assert got == chosen_one_by_one(features[0].tolist(), count)
    assert len(set(got)) == count
    assert len({kinds[i] for i in got}) == min(count, len(set(kinds)))  # one of every kind comes first
    if zeros:
        assert len(set(farthest_points(0 * features, count)[0].tolist())) == count


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7])
@pytest.mark.parametrize(("visual", "count"), [(1, 1), (2, 1), (7, 7), (576, 64)])
def test_constant_features(value, visual, count):
    decision = sl.DivPrune(keep=count).reduce(fake_context(count, 2, visual, embeds=torch.full((2, visual, 8), value)))
    assert decision.mask.sum(1).tolist() == [count] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    features = embeds(2, 40, 1, dtype=dtype)
    assert torch.equal(farthest_points(features, 12), farthest_points(features.float(), 12))


def test_budget_and_refusals():
    assert [sl.DivPrune(keep=keep).count(0, 576) for keep in (0.098, 64, 1.0, 1e-9)] == [56, 64, 576, 1]
    assert sl.DivPrune(keep=0.5).count(0, 5) == 2  # half to even
    with pytest.raises(sl.BudgetError, match="takes no threshold"):
        sl.DivPrune(keep=0.5, threshold=0.1)
    with pytest.raises(sl.BudgetError, match="acts once"):
        sl.DivPrune(keep=[0.5, 0.25])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_on_a_model(tiny, variant):
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.DivPrune(keep=6)) as run:
        model(**inputs)
    states = untouched(**inputs, output_hidden_states=True).hidden_states[0][0]
    features = states[inputs["input_ids"][0] == IMAGE].double().tolist()
    assert run.report.stages[0].kept[0].tolist() == sorted(chosen_one_by_one(features, 6))
    plain = model(**inputs).logits
    with sl.apply(model, sl.DivPrune(keep=1.0)):
        assert torch.equal(model(**inputs).logits, plain)


def test_without_a_table_the_same_tokens_are_chosen(monkeypatch):
    monkeypatch.setattr("seeless.ops.farthest.PIECE", 500)
    for seed in range(8):
        features = torch.randn(2, 90, 16, generator=torch.Generator().manual_seed(seed))
        features[:, 40:60] = features[:, :20]  # some are equal
        assert torch.equal(farthest_points(features, 70, table=0), farthest_points(features, 70))
