"""CLSE: the spectral score against a Fourier sum written out, the schedule of budgets, and what is refused."""

import cmath
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import fake_context, top, unit_of
from seeless.core.host import CACHE
from seeless.ops.spectral import low_pass, spectral_energy, spectral_evolution
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs


def energies(features, grid, ratio):
    """methods.md 3.1 with sums: `features` a list of vectors; one number per token."""
    frames, height, width = grid
    channels = len(features[0])
    bandwidth = min(height // 2, width // 2) * ratio

    def passed(v, u):  # frequency v, u stands at this place after the zero frequency is moved to the centre
        y, x = (v + height // 2) % height - height // 2, (u + width // 2) % width - width // 2
        return 1.0 if ratio == 0 else 1 - math.exp(-(y * y + x * x) / (2 * bandwidth * bandwidth))

    found = [0.0] * len(features)
    cells = [(y, x) for y in range(height) for x in range(width)]
    for frame in range(frames):
        first = frame * height * width
        for channel in range(channels):
            image = {(y, x): features[first + y * width + x][channel] for y, x in cells}
            spectrum = {
                (v, u): passed(v, u)
                * sum(image[y, x] * cmath.exp(-2j * math.pi * (v * y / height + u * x / width)) for y, x in cells)
                for v, u in cells
            }
            for y, x in cells:
                back = sum(
                    s * cmath.exp(2j * math.pi * (v * y / height + u * x / width)) for (v, u), s in spectrum.items()
                )
                found[first + y * width + x] += abs(back) / (height * width) / channels
    return found


def intensity(before, now, grid, ratio):
    """Equations 11 and 12."""
    reference, current = energies(before, grid, ratio), energies(now, grid, ratio)
    mean = sum(reference) / len(reference)
    return [min(1, abs(c - r) / (mean + r + 1e-6)) for r, c in zip(reference, current, strict=True)]


def evolution(before, now, grid, ratio, temperature):
    change = intensity(before, now, grid, ratio)
    middle = sum(change) / len(change)
    deviation = math.sqrt(sum((g - middle) ** 2 for g in change) / (len(change) - 1))
    return [1 / (1 + math.exp(-(g - middle) / (deviation + 1e-6) / temperature)) for g in change]


def tensors(units, visual, seed, dim=3, dtype=torch.float64, strength=0.5):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(units, visual, dim, generator=generator, dtype=torch.float64)
    change = torch.randn(units, visual, dim, generator=generator, dtype=torch.float64)
    attention = torch.rand(units, 2, 1, visual, generator=generator)
    return {"embeds": embeds.to(dtype), "visual": (embeds + strength * change).to(dtype), "attention": attention}


grids = st.tuples(st.integers(1, 2), st.integers(2, 5), st.integers(2, 5))


@settings(max_examples=25, deadline=None)
@given(grids, st.sampled_from([0.0, 0.1, 0.5, 2.0]), st.integers(0, 9999))
def test_energy_is_the_fourier_sum(grid, ratio, seed):
    visual = math.prod(grid)
    features = tensors(1, visual, seed)["embeds"]
    got = spectral_energy(features, grid, ratio)[0].tolist()
    assert got == pytest.approx(energies(features[0].tolist(), grid, ratio), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    grids,
    st.integers(1, 3),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.1, 1.0]),
    st.sampled_from([0.5, 4.0]),
    st.integers(0, 9999),
)
def test_scores_of_the_first_stage(grid, units, ratio, temperature, strength, seed):
    """A strong change exceeds what the reference holds, and counts as 1."""
    visual = math.prod(grid)
    seen = tensors(units, visual, seed, strength=strength)
    strategy = sl.CLSE(keep=0.5, cutoff_ratio=ratio, temperature=temperature)
    got = strategy.score(fake_context(2, units, visual, grid=grid, **seen))
    for unit in range(units):
        weights = evolution(seen["embeds"][unit].tolist(), seen["visual"][unit].tolist(), grid, ratio, temperature)
        heads = seen["attention"][unit, :, 0].double().tolist()
        want = [w * (a + b) / 2 for w, a, b in zip(weights, *heads, strict=True)]
        assert got[unit].tolist() == pytest.approx(want, abs=1e-4)
        alone = strategy.score(fake_context(2, 1, visual, grid=grid, **unit_of(seen, unit)))
        assert torch.allclose(alone[0], got[unit], atol=1e-6)


@pytest.mark.parametrize(
    ("stage_index", "grid"),
    [(1, (1, 4, 4)), (2, (1, 4, 4)), (0, None), (0, (1, 1, 16)), (0, (1, 16, 1)), (0, (8, 1, 2))],
)
def test_attention_alone_where_there_is_no_grid_and_later(stage_index, grid):
    seen = tensors(2, 16, 0)
    ctx = fake_context(4, 2, 16, stage_index=stage_index, grid=grid, **seen)
    assert torch.equal(sl.CLSE(keep=0.5).score(ctx), seen["attention"].mean((1, 2)))


def test_every_frame_is_an_image_of_its_own():
    first, second = (tensors(1, 16, seed)["embeds"] for seed in (0, 1))
    together = spectral_energy(torch.cat([first, second], 1), (2, 4, 4), 0.1)
    apart = [spectral_energy(frame, (1, 4, 4), 0.1) for frame in (first, second)]
    assert torch.equal(together, torch.cat(apart, 1))


@pytest.mark.parametrize("size", [1, 2, 5, 24])
def test_the_low_pass_weakens_each_frequency_by_its_factor(size):
    matrix, place = low_pass(size, 2 * 1.2**2), torch.arange(size, dtype=torch.float64)
    for frequency in range(size // 2 + 1):
        wave = (2 * math.pi * frequency / size * place).cos()
        assert torch.allclose(matrix @ wave, math.exp(-(frequency**2) / (2 * 1.2**2)) * wave, atol=1e-12)


@pytest.mark.parametrize(("grid", "ratio"), [((1, 5, 4), 0.0), ((1, 1, 4), 0.1)])
def test_everything_passes_where_there_is_no_room_for_a_band(grid, ratio):
    features = tensors(1, math.prod(grid), 0)["embeds"]
    assert torch.equal(spectral_energy(features, grid, ratio), features.abs().mean(-1))


def test_a_smooth_grid_has_no_energy_and_nothing_is_nan():
    flat = torch.ones(2, 12, 5)
    assert spectral_energy(flat, (1, 3, 4), 0.1).abs().max() < 1e-6
    for embeds, visual in ((flat, flat), (flat, torch.zeros_like(flat)), (torch.zeros_like(flat), flat)):
        assert spectral_evolution(embeds, visual, (1, 3, 4), 0.1, 0.1).isfinite().all()
        seen = {"embeds": embeds, "visual": visual, "attention": torch.zeros(2, 1, 1, 12)}
        for count in (1, 7, 12):
            decision = sl.CLSE(keep=0.5).reduce(fake_context(count, 2, 12, grid=(1, 3, 4), **seen))
            assert decision.mask.sum(1).tolist() == [count] * 2 and decision.scores.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    seen = tensors(2, 36, 3, dtype=dtype)
    wide = {name: tensor.float() for name, tensor in seen.items()}
    got, want = (sl.CLSE(keep=0.5).score(fake_context(4, 2, 36, grid=(1, 6, 6), **t)) for t in (seen, wide))
    assert got.dtype is torch.float32 and torch.equal(got, want)


# Budgets and layers.


@pytest.mark.parametrize(
    ("keep", "counts"),
    [
        (192, [330, 210, 62]),
        (128, [220, 140, 41]),
        (64, [110, 70, 20]),
        (100, [172, 109, 32]),
        (97, [166, 105, 31]),
        (np.int64(64), [110, 70, 20]),
        (576, [576, 576, 184]),  # never more than there are
        (1, [1, 1, 1]),  # int(0.32) is none
        (0.334, [328, 207, 56]),
        (0.223, [218, 138, 38]),
        (0.112, [109, 69, 19]),
        (0.25, [247, 156, 46]),
        (0.9, [576, 565, 165]),
        (1.0, [576, 576, 576]),
        (1e-9, [1, 1, 1]),
        ([0.5, 0.25, 0.125], [288, 144, 72]),
        ([300, 0.25, 8], [300, 144, 8]),
    ],
)
def test_what_a_budget_stands_for(keep, counts):
    strategy = sl.CLSE(keep=keep)
    assert [strategy.count(stage, 576) for stage in range(3)] == counts
    assert sl.from_dict(json.loads(json.dumps(strategy.to_dict()))) == strategy
    assert strategy.keep == keep and strategy.layer is None
    assert [strategy.keeps_all(stage) for stage in range(3)] == [
        strategy.budget(stage) == 1.0 and isinstance(strategy.budget(stage), float) for stage in range(3)
    ]


def test_one_means_everything_at_every_stage():
    assert all(sl.CLSE(keep=1.0).keeps_all(stage) for stage in range(3))
    assert not any(sl.CLSE(keep=1).keeps_all(stage) for stage in range(3))
    assert not sl.CLSE(keep=1.0, threshold=0.1).keeps_all(0)


def test_one_stage_takes_its_budget_as_it_stands():
    for layer in (3, [3]):
        assert sl.CLSE(keep=64, layer=layer).count(0, 576) == 64
        assert sl.CLSE(keep=0.25, layer=layer).count(0, 576) == 144
        assert sl.CLSE(keep=64, layer=layer).layers(8) == [3]


@pytest.mark.parametrize(
    ("depth", "layers"),
    [
        (32, [1, 11, 21]),
        (28, [1, 10, 19]),
        (36, [1, 13, 24]),
        (40, [1, 14, 27]),
        (8, [1, 3, 5]),
        (6, [1, 2, 4]),
        (24, [1, 9, 16]),
    ],
)
def test_layers_by_depth(depth, layers):
    assert sl.CLSE(keep=0.5).layers(depth) == layers
    assert sl.CLSE(keep=0.5, layer=[1, 3, 5]).layers(max(depth, 6)) == [1, 3, 5]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_no_room_for_three_stages(depth):
    if depth == 4:
        with pytest.raises(sl.BudgetError, match="4 layers has no room for three stages"):
            sl.CLSE(keep=0.5).layers(depth)  # 1, 1, 3
        assert sl.CLSE(keep=0.5, layer=[1, 2, 3]).layers(depth) == [1, 2, 3]
    else:
        with pytest.raises(sl.BudgetError, match="no room"):
            sl.CLSE(keep=0.5).layers(depth)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"keep": 0}, "keeps no token"),
        ({"keep": 1.5}, "must lie in"),
        ({"keep": [0.5, 0.25]}, "gives 2 budgets; name as many layers"),
        ({"keep": [0.25, 0.5, 0.1]}, "grows from 0.25 to 0.5"),
        ({"keep": [0.5, 0.25, 0]}, "keeps no token"),
        ({"keep": 64, "layer": [2, 4]}, "stands for three stages .* names 2"),
        ({"keep": [64, 32], "layer": [1, 3, 5]}, "3 layers .* need 3 budgets"),
        ({"keep": 64, "layer": [3, 2, 1]}, "ascending order"),
        ({"keep": 64, "layer": 0}, "first layer it can act before is 1"),
        ({"keep": 64, "layer": 2.0}, "layer=2.0 is not possible"),
        ({"keep": 64, "cutoff_ratio": -0.1}, "cutoff_ratio=-0.1 is not possible"),
        ({"keep": 64, "cutoff_ratio": math.nan}, "cutoff_ratio=nan is not possible"),
        ({"keep": 64, "cutoff_ratio": "wide"}, "cutoff_ratio='wide' is not possible"),
        ({"keep": 64, "temperature": 0}, "temperature=0 is not possible; give a positive number"),
        ({"keep": 64, "temperature": math.inf}, "temperature=inf is not possible"),
        ({"keep": 64, "temperature": True}, "temperature=True is not possible"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.CLSE(**knobs)


def test_layers_outside_the_model():
    with pytest.raises(sl.BudgetError, match="outside this model"):
        sl.CLSE(keep=64, layer=[1, 3, 6]).layers(6)


# On a model.


@pytest.mark.parametrize("variant", VARIANTS[:4], ids=str)
@torch.no_grad()
def test_on_a_model(tiny, variant):
    """The embeddings enter layer 0, the stage reads layer 1: the model's own hidden states give the same tokens."""
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, [[5, "image:0", 9]])
    with sl.apply(model, sl.CLSE(keep=5, layer=1)) as run:
        model(**inputs)
    out = untouched(**inputs, output_hidden_states=True, output_attentions=True)
    before, now = (out.hidden_states[i][0, 5:21].double().tolist() for i in (0, 1))
    weights = evolution(before, now, (1, 4, 4), 0.1, 0.1)
    attention = out.attentions[0][0, :, -1, 5:21].double().mean(0).tolist()
    scores = [w * a for w, a in zip(weights, attention, strict=True)]
    stage = run.report.stages[0]
    assert stage.scores[0].tolist() == pytest.approx(scores, abs=1e-4)
    assert stage.kept[0].tolist() == sorted(sorted(range(16), key=lambda i: -scores[i])[:5])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_stages_and_caches_on_a_model(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED[:1])
    plain = model(**inputs).logits
    with sl.apply(model, sl.CLSE(keep=5)) as run:
        cache = model(**inputs)[CACHE]
    assert [stage.layer for stage in run.report.stages] == [1, 2, 4]
    assert [stage.n_after for stage in run.report.stages] == [[8], [5], [1]]
    assert len({layer.keys.shape[2] for layer in cache.layers}) == 1  # trimmed
    with sl.apply(model, sl.CLSE(keep=1.0)) as run:
        assert torch.equal(model(**inputs).logits, plain)


@settings(max_examples=12, deadline=None)
@given(grids, st.integers(1, 2), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 9999))
def test_intensity_alone(grid, units, ratio, seed):
    visual = math.prod(grid)
    seen = tensors(units, visual, seed)
    strategy = sl.CLSE(keep=0.5, variant="intensity", cutoff_ratio=ratio)
    context = fake_context(2, units, visual, layer=2, grid=grid, visual=seen["visual"], entering={1: seen["embeds"]})
    got = strategy.score(context)
    for unit in range(units):
        want = intensity(seen["embeds"][unit].tolist(), seen["visual"][unit].tolist(), grid, ratio)
        assert got[unit].tolist() == pytest.approx(want, abs=1e-6)


@torch.no_grad()
def test_intensity_on_a_model(tiny):
    """Between what the first and the second layer give, before the third."""
    variant = VARIANTS[0]
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.CLSE(keep=5, variant="intensity")) as run:
        model(**inputs)
    states = untouched(**inputs, output_hidden_states=True).hidden_states
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    side = round(len(columns) ** 0.5)
    before, now = (states[layer][0, columns].double().tolist() for layer in (1, 2))
    scores = intensity(before, now, (1, side, side), 0.1)
    assert run.report.stages[0].layer == 2 and run.report.stages[0].n_after == [5]
    assert run.report.stages[0].scores[0].tolist() == pytest.approx(scores, abs=1e-4)
    assert run.report.stages[0].kept[0].tolist() == top(scores, 5)


@pytest.mark.parametrize("knobs", [{"keep": [0.5, 0.4, 0.3]}, {"keep": 0.5, "layer": [2, 4]}], ids=str)
def test_intensity_has_one_stage(knobs):
    with pytest.raises(sl.BudgetError, match="variant='intensity' has one stage"):
        sl.CLSE(variant="intensity", **knobs)
    assert sl.CLSE(keep=64, variant="intensity", layer=3).layers(8) == [3]
    assert [sl.CLSE(keep=64, variant="intensity").count(0, 576), *sl.CLSE(keep=9, variant="intensity").watches(8)] == [
        64,
        1,
    ]


def test_intensity_needs_a_grid():
    with pytest.raises(sl.InputError, match="these tokens fill none of at least 2 x 2"):
        sl.CLSE(keep=0.5, variant="intensity").score(fake_context(2, 1, 9, layer=2, visual=torch.ones(1, 9, 3)))
