"""SparseVLM against methods.md, section 7, written with lists; its budgets; and its merges inside a model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import fake_context, kept, top, unit_of
from oracle import MaskOracle, by_plain_recycling, merges_of, plain_peaks, turn_of
from seeless.ops.clustering import density_peaks
from seeless.ops.raters import text_raters
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

seeds = st.integers(0, 9999)


def random(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def made_up(seed, units, heads, text, visual, dim=6):
    """Attention that sums to less than one over the visual tokens, a bias of either sign, and embeddings."""
    return {
        "embeds": random(seed, units, visual, dim),
        "text_embeds": random(seed + 1, units, text, dim),
        "visual": random(seed + 2, units, visual, dim),
        "attention": (2 * random(seed + 3, units, heads, text, visual + 3)).softmax(-1)[..., :visual],
        "rope_bias": random(seed + 4, units, 1, text, visual),
    }


def context(sources, n_keep, **options):
    return fake_context(n_keep, *sources["embeds"].shape[:2], layer=3, **options, **sources)


# Raters.


def plain_raters(visual, text):
    total = [0.0] * len(text)
    for v in visual:
        powers = [math.exp(sum(a * b for a, b in zip(v, t, strict=True))) for t in text]
        total = [s + p / sum(powers) / len(visual) for s, p in zip(total, powers, strict=True)]
    raters = [t for t, m in enumerate(total) if m > sum(total) / len(total)]
    return raters or list(range(len(text)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 12), seeds)
def test_raters(units, visual, text, seed):
    x, y = random(seed, units, visual, 4, dtype=torch.float64), random(seed + 1, units, text, 4, dtype=torch.float64)
    got = text_raters(x, y)
    for unit in range(units):
        assert got[unit].nonzero()[:, 0].tolist() == plain_raters(x[unit].tolist(), y[unit].tolist())
        assert torch.equal(text_raters(x[unit : unit + 1], y[unit : unit + 1])[0], got[unit])


@pytest.mark.parametrize("text", [1, 2, 5])
def test_equal_words_are_all_raters(text):
    assert text_raters(random(0, 2, 7, 4), torch.ones(2, text, 4)).all()


# Clusters.


def as_sets(cluster, centre):
    return {c: {i for i, own in enumerate(cluster) if own == n} for n, c in enumerate(centre)}


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3), st.integers(1, 30), seeds, st.data())
def test_clusters(units, tokens, seed, data):
    count = data.draw(st.integers(1, tokens))
    x = random(seed, units, tokens, 3, dtype=torch.float64)
    noise = torch.rand(tokens, generator=torch.Generator().manual_seed(seed))
    cluster, centre = density_peaks(x, count, noise)
    assert cluster.shape == (units, tokens) and centre.shape == (units, count)
    for unit in range(units):
        want = plain_peaks(x[unit].tolist(), count, noise.tolist())
        assert centre[unit].tolist() == [c for c, _ in want]
        assert as_sets(cluster[unit].tolist(), centre[unit].tolist()) == {c: set(own) for c, own in want}
        alone = density_peaks(x[unit : unit + 1], count, noise)
        assert torch.equal(alone[0][0], cluster[unit]) and torch.equal(alone[1][0], centre[unit])


@pytest.mark.parametrize("piece", [1, 150, 1 << 20])
@pytest.mark.parametrize("table", [0, 1 << 26])
def test_clusters_in_pieces_and_without_a_table_are_the_same(monkeypatch, table, piece):
    for seed in range(5):
        x, noise = random(seed, 2, 60, 5), torch.rand(60, generator=torch.Generator().manual_seed(seed))
        whole = density_peaks(x, 7, noise)
        with monkeypatch.context() as patch:
            patch.setattr("seeless.ops.clustering.PIECE", piece)
            assert all(map(torch.equal, density_peaks(x, 7, noise, table=table), whole))


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_clusters_of_equal_tokens(tokens):
    """Nothing but noise decides, every centre has a token, and nothing is lost."""
    for count in range(1, tokens + 1):
        cluster, centre = density_peaks(torch.ones(1, tokens, 4), count, torch.rand(tokens))
        assert len(set(centre[0].tolist())) == count and set(cluster[0].tolist()) == set(range(count))
        assert cluster[0][centre[0]].tolist() == list(range(count))


# Scores.


def plain_scores(sources, unit, version="1.0", heads=14):
    raters = plain_raters(sources["embeds"][unit].double().tolist(), sources["text_embeds"][unit].double().tolist())
    maps, bias = sources["attention"][unit].double().tolist(), sources["rope_bias"][unit, 0].double().tolist()
    visual = range(sources["embeds"].shape[1])
    rated = []
    for own in maps:
        sums = [0.0 for _ in visual]
        for r in raters:
            for j in visual:
                sums[j] += own[r][j] / (bias[r][j] if version == "2.0" else 1)
        rated.append([s / len(raters) for s in sums])
    chosen = range(len(rated))
    if version == "2.0":
        chosen = top([sum(own) for own in rated], heads)
    return [sum(rated[h][j] for h in chosen) / len(chosen) for j in visual]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(1, 12), seeds)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_scores(version, units, heads, wanted_heads, text, visual, seed):
    sources = made_up(seed, units, heads, text, visual)
    strategy = sl.SparseVLM(keep=1, layer=3, version=version, heads=wanted_heads)
    got = strategy.score(context(sources, 1))
    for unit in range(units):
        want = torch.tensor(plain_scores(sources, unit, version, wanted_heads), dtype=torch.float64)
        assert torch.allclose(got[unit].double(), want, rtol=1e-4, atol=1e-5)
        assert torch.equal(strategy.score(context(unit_of(sources, unit), 1))[0], got[unit])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_long_prompts_are_read_in_parts(version):
    sources = made_up(3, 2, 20, 75, 10)
    got = sl.SparseVLM(192, version=version).score(context(sources, 1))
    for unit in range(2):
        want = torch.tensor(plain_scores(sources, unit, version), dtype=torch.float64)
        assert torch.allclose(got[unit].double(), want, rtol=1e-4, atol=1e-5)


def test_raters_are_chosen_once():
    sources, other, memory = made_up(0, 1, 2, 6, 9), made_up(50, 1, 2, 6, 9), {}
    strategy = sl.SparseVLM(192)
    strategy.score(context(sources, 1, memory=memory))
    later = {**other, "embeds": other["embeds"][:, :5], "attention": sources["attention"][..., :5]}
    got = strategy.score(context(later, 1, stage_index=1, memory=memory))
    assert torch.allclose(got[0].double(), torch.tensor(plain_scores(sources, 0)[:5]).double(), atol=1e-6)


def test_no_text():
    sources = made_up(0, 1, 2, 0, 5)
    with pytest.raises(sl.InputError, match="no token follows the image"):
        sl.SparseVLM(192).reduce(context(sources, 3))


def test_a_bias_of_zero_stays_finite():
    sources = made_up(0, 2, 3, 4, 8)
    sources["rope_bias"] = torch.zeros_like(sources["rope_bias"])
    decision = sl.SparseVLM(192, version="2.0").reduce(context(sources, 3))
    assert decision.scores.isfinite().all() and decision.mask.sum(1).tolist() == [3, 3]


# Decisions.


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3), st.integers(1, 80), seeds, st.data())
def test_exactly_the_budget_and_the_merged_values(units, visual, seed, data):
    budget = data.draw(st.integers(1, visual))
    sources = made_up(seed, units, 2, 5, visual)
    decision = sl.SparseVLM(192, seed=seed).reduce(context(sources, budget))
    assert decision.mask.sum(1).tolist() == [budget] * units
    values = decision.values(sources["visual"]) if isinstance(decision, sl.Merge) else sources["visual"]
    for unit in range(units):
        states = sources["visual"][unit].double()
        stay, clusters = by_plain_recycling(decision.scores[unit].tolist(), states.tolist(), budget, seed)
        assert sorted([*stay, *clusters]) == kept(decision)[unit]
        assert torch.equal(values[unit, stay], sources["visual"][unit, stay])
        for centre, members in clusters.items():
            assert centre in members
            assert torch.allclose(values[unit, centre].double(), states[members].mean(0), atol=1e-5)
        alone = sl.SparseVLM(192, seed=seed).reduce(context(unit_of(sources, unit), budget))
        assert torch.equal(alone.mask[0], decision.mask[unit])
        if isinstance(decision, sl.Merge):
            own = alone.values(sources["visual"][unit : unit + 1])
            assert torch.equal(own[0][alone.mask[0]], values[unit][alone.mask[0]])


@pytest.mark.parametrize(
    ("visual", "budget", "clusters"),
    [
        *[(576, 300, 9), (300, 200, 4), (200, 110, 3), (576, 66, 16), (66, 30, 2), (30, 17, 1), (576, 575, 1)],
        *[(576, 5, 4), (10, 10, 0), (10, 1, 0), (2, 1, 0), (2, 2, 0), (3, 2, 1)],
    ],
)
def test_how_many_of_the_budget_are_merged(visual, budget, clusters):
    """p dropped, t = floor(.3 p) + 1 recycled, floor(t / 10) + 1 clusters; as few as add up to the budget."""
    decision = sl.SparseVLM(192).reduce(context(made_up(1, 1, 1, 3, visual), budget))
    found = len(set(decision.slot[0].tolist())) if isinstance(decision, sl.Merge) else 0
    assert found == clusters
    if 0 < clusters < budget - 1:
        p = visual - (budget - clusters)
        t = int(0.3 * p) + 1
        assert len(decision.source[0]) == t and clusters == t // 10 + 1


def test_version_2_merges_nothing():
    sources = made_up(0, 2, 3, 5, 40)
    decision = sl.SparseVLM(192, version="2.0").reduce(context(sources, 12))
    assert isinstance(decision, sl.Keep)
    assert kept(decision) == [top(scores, 12) for scores in decision.scores.tolist()]


def test_the_seed_settles_what_nothing_else_does():
    sources = made_up(0, 2, 2, 5, 20)  # one cluster of four, whose densities are all 1
    masks = [sl.SparseVLM(192, seed=seed).reduce(context(sources, 10)).mask for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(masks[0], masks[1])
    assert any(not torch.equal(masks[0], other) for other in masks[2:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["random", "constant", "huge"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_any_number_type_and_degenerate_values(dtype, kind, version):
    sources = made_up(0, 2, 16, 5, 50)
    for name in ("embeds", "text_embeds", "visual"):
        x = sources[name]
        x = {"random": x, "constant": torch.ones_like(x), "huge": x * 1000}[kind]
        sources[name] = x.to(dtype)
    if kind == "constant":
        sources["attention"] = torch.full_like(sources["attention"], 0.01)
    for budget in (1, 2, 7, 49, 50):
        decision = sl.SparseVLM(192, version=version).reduce(context(sources, budget))
        assert decision.scores.isfinite().all() and decision.mask.sum(1).tolist() == [budget] * 2
        if isinstance(decision, sl.Merge):
            values = decision.values(sources["visual"])
            assert values.dtype is dtype and values.isfinite().all()


# Knobs.


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_released_budgets(version):
    table = {
        "1.0": {192: [300, 200, 110], 128: [303, 110, 36], 96: [238, 48, 26], 64: [66, 30, 17]},
        "2.0": {192: [300, 200, 118], 128: [238, 108, 60], 96: [246, 54, 28], 64: [66, 34, 20]},
    }[version]
    for keep, budgets in table.items():
        strategy = sl.SparseVLM(keep=keep, version=version)
        assert [strategy.count(i, 576) for i in range(3)] == budgets
        assert [strategy.count(i, 2880) for i in range(3)] == budgets  # a number is a number
        share = sl.SparseVLM(keep=keep / 576, version=version)
        assert [share.count(i, 576) for i in range(3)] == budgets
        assert [share.count(i, 1152) for i in range(3)] == [2 * b for b in budgets]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("original", [1, 5, 100, 192, 576, 2880])
def test_other_budgets_lie_between(version, original):
    for keep in [1, 2, 32, 64, 80, 100, 160, 191, 300, 575, 5000, 0.001, 0.05, 0.2, 1 / 3, 0.5, 0.99]:
        counts = [sl.SparseVLM(keep=keep, version=version).count(i, original) for i in range(3)]
        assert counts == sorted(counts, reverse=True) and counts[-1] >= 1 and counts[0] <= original
        if isinstance(keep, int) and keep >= original:
            assert counts == [original] * 3
    assert [sl.SparseVLM(keep=160, version="1.0").count(i, 576) for i in range(3)] == [301, 155, 73]
    assert [sl.SparseVLM(keep=32, version="1.0").count(i, 576) for i in range(3)] == [33, 15, 8]


def test_lists_and_single_layers():
    strategy = sl.SparseVLM(keep=[0.5, 100, 0.1], layer=[2, 4, 9])
    assert [strategy.count(i, 576) for i in range(3)] == [288, 100, 57] and strategy.layers(32) == [2, 4, 9]
    strategy = sl.SparseVLM(keep=64, layer=3)
    assert strategy.count(0, 576) == 64 and strategy.layers(32) == [3]
    strategy = sl.SparseVLM(keep=[9, 3], layer=[2, 4])
    assert strategy.layers(6) == [2, 4] and strategy.count(1, 576) == 3
    for one in (strategy, sl.SparseVLM(192), sl.SparseVLM(keep=(0.5, 0.4, 0.1), version="2.0", heads=3, seed=4)):
        assert sl.from_dict(one.to_dict()) == one


def test_layers_scale_with_the_depth():
    want = {32: [3, 7, 16], 40: [4, 9, 20], 28: [3, 6, 14], 24: [2, 5, 12], 8: [1, 2, 4], 4: [1, 2, 3]}
    assert {depth: sl.SparseVLM(192).layers(depth) for depth in want} == want
    for depth in (1, 2, 3):
        with pytest.raises(sl.BudgetError, match=f"a decoder of {depth} layers has no room for three stages"):
            sl.SparseVLM(192).layers(depth)


def test_positions_follow_the_version():
    assert [sl.SparseVLM(192, version=version).own_positions for version in ("1.0", "2.0")] == ["renumber", "keep"]
    assert sl.SparseVLM(192).positions is None


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"version": "3"}, "version='3' is not possible; choose one of 1.0, 2.0"),
        ({"version": 2.0}, "version=2.0 is not possible"),
        ({"heads": 0}, "heads=0 is not possible; give a whole number from 1 on"),
        ({"heads": 1.5}, "heads=1.5 is not possible"),
        ({"seed": -1}, "seed=-1 is not possible; give a whole number from 0 on"),
        ({"seed": True}, "seed=True is not possible"),
        ({"threshold": 0.1}, "takes no threshold"),
        ({"keep": [64, 32]}, "is no budget for 3 stages; give a list of 3"),
        ({"keep": 64, "layer": [2, 4]}, "keep=64 is no budget for 2 stages; give a list of 2"),
        ({"keep": [64, 32], "layer": 3}, "is no budget for 1 stages; give a list of 1"),
        ({"keep": [10, 20, 5]}, "grows from 10 to 20"),
        ({"keep": 0}, "keeps no token"),
        ({"keep": 1.5}, "is not a share"),
        ({"layer": [4, 2, 9]}, "in ascending order"),
        ({"positions": "gone"}, "positions='gone' is not possible"),
    ],
)
def test_refusals(knobs, message):
    with pytest.raises(sl.BudgetError, match=message.replace(".", r"\.")):
        sl.SparseVLM(**{"keep": 192, **knobs})


# In a model.


def bias_by_hand(config, row, column):
    """All-one queries and keys in rotary positions `row` and `column`: a cosine per frequency, twice."""
    dim, base = config.head_dim, config.rope_parameters["rope_theta"]
    turns = [(row - column) * base ** (-2 * i / dim) for i in range(dim // 2)]
    return sum(2 * math.cos(turn) for turn in turns) / math.sqrt(dim)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@torch.no_grad()
def test_scores_from_the_models_own_maps(tiny, variant, version):
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, sl.SparseVLM(keep=[0.5], layer=[2], version=version, heads=2)) as run:
        model(**inputs)
    plain = untouched(**inputs, output_attentions=True, output_hidden_states=True, use_cache=False)
    maps, embeds = plain.attentions[1].double(), plain.hidden_states[0]
    for row, (ids, mask) in enumerate(zip(inputs["input_ids"], inputs["attention_mask"], strict=True)):
        columns = (ids == IMAGE).nonzero()[:, 0]
        if len(columns) == 0:
            continue
        text = torch.arange(int(columns[-1]) + 1, len(ids))
        place = mask.cumsum(0) - 1
        config = untouched.config.text_config
        bias = [[bias_by_hand(config, int(place[t]), int(place[c])) for c in columns] for t in text]
        sources = {
            "embeds": embeds[row, columns][None],
            "text_embeds": embeds[row, text][None],
            "attention": maps[row][:, text][:, :, columns][None],
            "rope_bias": torch.tensor(bias)[None, None],
        }
        want = torch.tensor(plain_scores(sources, 0, version, 2), dtype=torch.float64)
        got = run.report.stages[0].scores[row].double()
        assert torch.allclose(got, want, rtol=2e-3, atol=1e-5)


class Spy(sl.LayerStrategy):
    """Notes what the rotary bias and the text's embeddings are at each stage."""

    def score(self, ctx):
        seen.append((ctx.rope_bias("text"), ctx.rope_bias(), ctx.rope_bias(torch.tensor([-2])), ctx.text_embeds))
        return -ctx.index.float()  # keep the first


seen: list = []


@pytest.mark.parametrize("positions", ["keep", "renumber"])
@torch.no_grad()
def test_the_bias_follows_the_positions(tiny, positions):
    variant = VARIANTS[1]
    model, seen[:] = tiny(variant, "sdpa"), []
    inputs = make_inputs(model, variant, [[5, "image:0", 9]])
    config = model.config.text_config
    with sl.apply(model, Spy(keep=[6, 3], layer=[2, 4], positions=positions)):
        model(**inputs)
    for stage, columns in enumerate((range(5, 21), range(5, 11))):
        gap = 10 if stage and positions == "renumber" else 0  # six of sixteen are left
        want = [[bias_by_hand(config, row - gap, column) for column in columns] for row in range(21, 30)]
        text, last, second_last, embeds = seen[stage]
        assert text.shape == (1, 1, 9, len(columns)) and text.dtype is torch.float32
        assert torch.allclose(text[0, 0], torch.tensor(want), atol=1e-4)
        assert torch.allclose(last[0, 0], text[0, 0, -1:]) and torch.allclose(second_last[0, 0], text[0, 0, -2:-1])
        assert torch.equal(embeds[0], model.get_input_embeddings()(inputs["input_ids"][0, 21:]))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize(
    "strategy",
    [
        sl.SparseVLM(keep=[0.8, 0.7, 0.2], layer=[1, 2, 5]),
        sl.SparseVLM(keep=[12, 9, 4], scope="image"),
        sl.SparseVLM(keep=0.2, version="1.0", positions="keep", past="trim"),
        sl.SparseVLM(keep=[0.5, 0.3, 0.1], version="2.0"),
        sl.SparseVLM(keep=6, layer=2, version="2.0", heads=1),
    ],
    ids=["merging", "images", "trimmed", "2.0", "one-layer"],
)
@torch.no_grad()
def test_prefill_and_decode_are_the_oracles(tiny, variant, strategy):
    rows = [[5, "image:0", 9], [2, "image:3", 3]] if strategy.scope == "image" else RAGGED
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, rows)
    with sl.apply(model, strategy) as run:
        out = model.generate(
            **inputs, max_new_tokens=3, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    for number, stage in enumerate(run.reports[0].stages):
        sizes = [strategy.count(number, before) if before else 0 for before in run.reports[0].n_before]
        assert stage.n_after == sizes
    prompt = inputs["input_ids"].shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 3), value=1)
    turn = turn_of(run.reports[0], inputs["input_ids"], IMAGE)
    merges = merges_of(strategy, turn, None)
    assert ("at_layers" in merges) == (strategy.version == "1.0")
    with MaskOracle(untouched, [strategy], [turn], mask, **merges):
        full = {**inputs, "input_ids": out.sequences, "attention_mask": mask}
        want = untouched(**full, use_cache=False).logits[:, prompt - 1 : -1]
    assert (torch.stack(out.logits, 1) - want).abs().max() < 1e-4


@pytest.mark.parametrize("variant", VARIANTS[::4], ids=str)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@torch.no_grad()
def test_identity_and_half_precision(tiny, variant, version):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    before = model(**inputs).logits
    with sl.apply(model, sl.SparseVLM(keep=1.0, version=version)):
        assert torch.equal(model(**inputs).logits, before)
    model = variant.build("sdpa", torch.bfloat16)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with sl.apply(model, sl.SparseVLM(keep=[0.6, 0.3, 0.2], version=version)):
        assert model(**inputs).logits.isfinite().all()
