"""PruneSID: groups against NumPy's singular vectors, lists and parts against loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import cosine, fake_context, kept, random_tensors, unit_of


def plain_groups(features, count):
    """By singular vectors of the transposed sigmoids."""
    x = 1 / (1 + np.exp(-np.array(features, dtype=np.float64).T))  # [channels, tokens]
    x = x - x.mean(0)
    vectors = np.linalg.svd(x, full_matrices=False)[2][:count]
    return np.abs(vectors).argmax(0).tolist()


def chosen_one_by_one(features, attention, count, groups=0.25, base=32.0, most=5):
    """The specification with lists."""
    n = len(features)
    group = plain_groups(features, max(1, int(count * groups)))
    likes = [[cosine(a, b) for b in features] for a in features]
    pairs = [likes[i][j] for i in range(n) for j in range(n) if i != j]
    limit = count / base * (sum(pairs) / len(pairs) if pairs else 0.0)
    order = sorted(range(n), key=lambda i: (-attention[i], i))
    lists, others = {}, {}
    for i in order:
        own = lists.setdefault(group[i], [])
        repeats = any(likes[i][j] > limit for j in own)
        (others.setdefault(group[i], []) if repeats else own).append(i)
    queue = {g: own + others.get(g, []) for g, own in lists.items()}
    cap = most * math.ceil(count / 64)
    parts = dict.fromkeys(queue, 0)
    for _ in range(count):

        def urgent(g):
            average = len(lists[g]) / (parts[g] + 1)
            return (parts[g] == 0) - (parts[g] >= cap), average, -rank(g)

        def rank(g):  # equal averages: to the token that comes first, lists before the rest
            i = queue[g][parts[g]]
            return (i not in lists[g]) * n + order.index(i)

        g = max((g for g in queue if parts[g] < len(queue[g])), key=urgent)
        parts[g] += 1
    return sorted(i for g, own in queue.items() for i in own[: parts[g]])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 16), st.integers(0, 9999), st.data())
def test_any_size(units, visual, seed, data):
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    knobs = data.draw(st.sampled_from([{}, {"groups": 0.5, "base": 4.0}, {"groups": 1.0, "most": 1}]))
    seen = random_tensors(units, visual, seed, dim=40)
    seen["vision_features"][:, ::3] += 1.5 * seen["vision_features"][:, :1]  # some that resemble each other
    strategy = sl.PruneSID(keep=count, **knobs)
    decision = strategy.reduce(fake_context(count, units, visual, layer=0, **seen))
    for unit in range(units):
        attention = seen["vision_attention"][unit].mean(0)
        want = chosen_one_by_one(seen["vision_features"][unit].tolist(), attention.tolist(), count, **knobs)
        assert kept(decision)[unit] == want and len(want) == count
        alone = strategy.reduce(fake_context(count, 1, visual, layer=0, **unit_of(seen, unit)))
        assert kept(alone) == [kept(decision)[unit]]


@pytest.mark.parametrize(("visual", "count"), [(1, 1), (9, 9), (16, 5)])
def test_equal_tokens(visual, count):
    seen = {"vision_features": torch.ones(2, visual, 8), "vision_attention": torch.ones(2, 3, visual) / visual}
    decision = sl.PruneSID(keep=count).reduce(fake_context(count, 2, visual, layer=0, **seen))
    assert decision.mask.sum(1).tolist() == [count] * 2


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"groups": 0.0}, r"groups=0\.0 is not possible"),
        ({"base": math.inf}, "base=inf is not possible"),
        ({"most": 0}, "most=0 is not possible"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.PruneSID(keep=0.5, **knobs)
