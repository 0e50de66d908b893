"""AnchorPrune: the anchor and what is added to it against lists; relevance by CLIP and by embeddings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import A8, R8, X8, cosine, fake_context, kept, random_tensors
from seeless.ops.anchors import anchor_size, expanded


def chosen_one_by_one(relevance, patches, features, importance, count, least, knobs=None):
    """The specification with lists: the anchor in order, then what is added."""
    knobs = {"most": 0.5, "novelty": 0.2, "patience": 3, **(knobs or {})}
    ranked = sorted(range(len(relevance)), key=lambda i: (-relevance[i], i))
    least = min(max(1, least), count)
    most = max(least, int(knobs["most"] * count))
    size, news = most, 0
    for t in range(least, most):
        new = 1 - max(cosine(patches[ranked[t]], patches[i]) for i in ranked[:least])
        news += new > knobs["novelty"]
        if news == knobs["patience"]:
            size = t + 1
            break
    chosen = ranked[:size]
    while len(chosen) < count:
        rest = [i for i in range(len(relevance)) if i not in chosen]
        worth = {
            i: max(importance[i], 0) * min(1, *(1 - cosine(features[i], features[j]) for j in chosen), 2) for i in rest
        }
        best = max(worth.values())
        chosen.append(next(i for i in rest if worth[i] >= best - 1e-12))
    return chosen, size


def test_worked_out():
    order = R8.argsort(descending=True, stable=True)
    for patience in (3, 1):
        assert anchor_size(X8, order, 1, 3, 0.2, patience).tolist() == [3]
    args = R8[0].tolist(), X8[0].tolist(), X8[0].tolist(), A8[0].tolist(), 6, 1
    assert chosen_one_by_one(*args) == ([0, 1, 4, 7, 3, 6], 3)
    start = torch.zeros(1, 8, dtype=torch.bool)
    start[0, [0, 1, 4]] = True
    assert expanded(X8, A8, start, 6)[0].nonzero()[:, 0].tolist() == [0, 1, 3, 4, 6, 7]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 13), st.booleans(), st.integers(0, 9999), st.data())
def test_any_size(units, visual, clip, seed, data):
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    knobs = data.draw(st.sampled_from([{}, {"most": 1.0, "patience": 1, "novelty": 0.9}, {"most": 0.8, "patience": 2}]))
    anchor = data.draw(st.sampled_from([0.0, 5 / 32, 0.5]))
    seen = random_tensors(units, visual, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    texts = torch.randn(units, 2, 5, generator=generator, dtype=torch.float64)
    patches = torch.randn(units, visual, 5, generator=generator, dtype=torch.float64)
    more = {"clip_patches": patches, "clip_text": texts, "token_embeds": texts, "question": "any"}
    strategy = sl.AnchorPrune(keep=count, anchor=anchor, clip="any" if clip else None, **knobs)
    decision = strategy.reduce(fake_context(count, units, visual, layer=0, **seen, **more))
    for unit in range(units):
        asked, own = texts[unit].tolist(), (patches if clip else seen["embeds"])[unit].tolist()
        likes = [[cosine(p, t) for t in asked] for p in own]
        relevance = [-sum(row) / len(row) if clip else max(row) for row in likes]
        assert decision.scores[unit].tolist() == pytest.approx(relevance)
        features = seen["vision_features" if clip else "embeds"][unit].tolist()
        importance = seen["vision_attention"][unit].mean(0).tolist()
        # As ranked: equal tokens may differ in the last digits of a float here and there.
        rounded = [round(r, 9) for r in relevance]
        want, _ = chosen_one_by_one(rounded, own, features, importance, count, round(anchor * count), knobs)
        assert kept(decision)[unit] == sorted(want)


def test_the_least_anchor():
    assert [round(sl.AnchorPrune(keep=k).anchor * k) for k in (32, 64, 128, 256)] == [5, 10, 20, 40]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"anchor": 1.5}, r"anchor=1\.5 is no share"),
        ({"most": -0.5}, r"most=-0\.5 is no share"),
        ({"novelty": 3.0}, r"novelty=3\.0 is no cosine distance"),
        ({"patience": 0}, "patience=0 is not possible"),
        ({"clip": ""}, "clip='' is no text"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.AnchorPrune(keep=0.5, **knobs)
