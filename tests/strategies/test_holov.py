"""HoloV: chunk scores, quotas and choices against lists; every surplus finds a place."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import cosine, fake_context, kept, unit_of
from seeless.ops.chunks import chunk_sizes, share_out, similarity_spread
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs


def parts_of(visual, chunks):
    """Contiguous chunks, the first `visual mod chunks` of them one longer."""
    chunks = min(chunks, visual)
    found, start = [], 0
    for i in range(chunks):
        size = visual // chunks + (1 if i < visual % chunks else 0)
        found.append(list(range(start, start + size)))
        start += size
    return found


def spread(features):
    """v of methods.md, section 13, step 3."""
    n = len(features)
    likeness = [[cosine(a, b) if i != j else 0.0 for j, b in enumerate(features)] for i, a in enumerate(features)]
    others = max(1, n - 1)
    return [sum((s - sum(row) / others) ** 2 for s in row) / others for row in likeness]


def token_scores(attention, features, chunks, weight, attention_weight):
    """Per chunk, the score of each token."""
    scores = []
    for part in parts_of(len(attention), chunks):
        looked_at = [attention_weight * attention[i] for i in part]
        uneven = spread([features[i] for i in part])
        size = sum(map(abs, uneven)) / len(part)
        scale = sum(map(abs, looked_at)) / len(part) / size if size else 0.0
        scores.append([a + weight * scale * v for a, v in zip(looked_at, uneven, strict=True)])
    return scores


def quotas(scores, sizes, count):
    """Floored shares; then one each to the chunks of the highest score that have room, until none is left."""
    total = sum(scores) + 1e-6
    found = [min(math.floor(s / total * count), size) for s, size in zip(scores, sizes, strict=True)]
    while sum(found) < count:
        for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
            if found[i] < sizes[i] and sum(found) < count:
                found[i] += 1
    return found


def released(scores, sizes, count):
    """As released: leftovers to the highest scores, room or not; a chunk then gives what it has."""
    total = sum(scores) + 1e-6
    found = [math.floor(s / total * count) for s in scores]
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: count - sum(found)]:
        found[i] += 1
    return [min(quota, size) for quota, size in zip(found, sizes, strict=True)]


def chosen(attention, features, count, chunks, weight=0.09, attention_weight=1000.0, within="attention"):
    parts = parts_of(len(attention), chunks)
    scores = token_scores(attention, features, chunks, weight, attention_weight)
    shares = quotas([sum(own) / len(own) for own in scores], list(map(len, parts)), count)
    deciding = attention if within == "attention" else [s for own in scores for s in own]
    found = []
    for part, quota in zip(parts, shares, strict=True):
        found += sorted(part, key=lambda i: (-deciding[i], i))[:quota]
    return sorted(found)


def tensors(units, visual, seed, dtype=torch.float64, sharp=1.0):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(units, 2, visual, generator=generator, dtype=torch.float64).mul(sharp).softmax(-1)
    embeds = torch.randn(units, visual, 5, generator=generator, dtype=torch.float64)
    return {"vision_attention": attention, "embeds": embeds.to(dtype)}


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 20),
    st.sampled_from([0.0, 1.0, 4.0]),
    st.integers(0, 9999),
    st.data(),
)
def test_any_size(units, visual, chunks, sharp, seed, data):
    count = data.draw(st.integers(1, visual))
    weight = data.draw(st.sampled_from([0.0, 0.09, 3.0]))
    seen = tensors(units, visual, seed, sharp=sharp + 0.1)
    within = data.draw(st.sampled_from(["attention", "score"]))
    strategy = sl.HoloV(keep=count, chunks=chunks, weight=weight, within=within)
    decision = strategy.reduce(fake_context(count, units, visual, layer=0, **seen))
    for unit in range(units):
        attention = seen["vision_attention"][unit].mean(0)
        assert torch.equal(decision.scores[unit], attention)
        args = attention.tolist(), seen["embeds"][unit].tolist(), count, chunks, weight
        assert kept(decision)[unit] == chosen(*args, within=within)
        assert len(kept(decision)[unit]) == count
        alone = strategy.reduce(fake_context(count, 1, visual, layer=0, **unit_of(seen, unit)))
        assert kept(alone) == [kept(decision)[unit]]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9999), st.floats(0.1, 5), st.data())
def test_shares_are_met_exactly_and_hold_what_the_released_code_keeps(visual, chunks, seed, sharp, data):
    count = data.draw(st.integers(0, visual))
    sizes = chunk_sizes(visual, chunks)
    assert sizes == [len(part) for part in parts_of(visual, chunks)]
    scores = torch.randn(1, len(sizes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = (sharp * scores).exp()
    got = share_out(scores, sizes, count)[0].tolist()
    assert got == quotas(scores[0].tolist(), sizes, count)
    assert sum(got) == count
    without = released(scores[0].tolist(), sizes, count)
    assert all(0 <= a <= size and a >= b for a, b, size in zip(got, without, sizes, strict=True))


def test_units_share_out_on_their_own():
    scores = torch.tensor([[8.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [math.nan, 1.0, 2.0, 3.0]])
    assert share_out(scores, [3, 3, 3, 3], 10).tolist() == [[3, 3, 2, 2], [3, 3, 2, 2], [3, 3, 2, 2], [1, 3, 3, 3]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 9999))
def test_the_spread(size, seed):
    features = tensors(2, size, seed)["embeds"]
    for unit in range(2):
        assert similarity_spread(features)[unit].tolist() == pytest.approx(spread(features[unit].tolist()), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("looked_at", [0.0, 0.1])
@pytest.mark.parametrize(("visual", "count"), [(1, 1), (2, 1), (9, 9), (17, 5), (576, 64)])
def test_constant_input_and_small_units(value, looked_at, visual, count):
    seen = {"vision_attention": torch.full((2, 3, visual), looked_at), "embeds": torch.full((2, visual, 4), value)}
    decision = sl.HoloV(keep=count).reduce(fake_context(count, 2, visual, layer=0, **seen))
    assert decision.mask.sum(1).tolist() == [count] * 2


def test_one_bright_chunk_passes_its_surplus_on():
    """Nearly all attention on four tokens: the released code would keep those and fill up with zeros."""
    attention = torch.full((1, 1, 64), 1e-6)
    attention[0, 0, 8:12] = 0.25
    seen = {"vision_attention": attention, "embeds": tensors(1, 64, 0)["embeds"]}
    decision = sl.HoloV(keep=20).reduce(fake_context(20, 1, 64, layer=0, **seen))
    assert decision.mask.sum() == 20 and decision.mask[0, 8:12].all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    seen = tensors(2, 50, 5, dtype)
    wide = {**seen, "embeds": seen["embeds"].float()}
    contexts = [fake_context(13, 2, 50, layer=0, **t) for t in (seen, wide)]
    assert kept(sl.HoloV(keep=13).reduce(contexts[0])) == kept(sl.HoloV(keep=13).reduce(contexts[1]))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"chunks": 0}, "chunks=0 is not possible; give a whole number of at least 1"),
        ({"chunks": 2.0}, r"chunks=2\.0 is not possible"),
        ({"chunks": True}, "chunks=True is not possible"),
        ({"weight": -0.1}, r"weight=-0\.1 is not possible"),
        ({"weight": "much"}, "weight='much' is not possible"),
        ({"attention_weight": math.inf}, "attention_weight=inf is not possible"),
        ({"attention_weight": math.nan}, "attention_weight=nan is not possible"),
        ({"within": "both"}, "within='both'"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.HoloV(keep=0.5, **knobs)


@pytest.mark.parametrize("variant", VARIANTS[:4], ids=str)
@torch.no_grad()
def test_on_a_model(tiny, variant):
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.HoloV(keep=6, chunks=5)) as run:
        model(**inputs)
    tower = untouched.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    attention = tower.attentions[-2][0, :, 0, 1:].double().mean(0)
    states = untouched(**inputs, output_hidden_states=True).hidden_states[0][0]
    features = states[inputs["input_ids"][0] == IMAGE].double()
    stage = run.report.stages[0]
    assert stage.kept[0].tolist() == chosen(attention.tolist(), features.tolist(), 6, 5)
    assert torch.allclose(stage.scores[0].double(), attention, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_everything_on_a_model(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    plain = model(**inputs).logits
    with sl.apply(model, sl.HoloV(keep=1.0)) as run:
        assert torch.equal(model(**inputs).logits, plain)
    assert run.report.share == 1
