"""The built-in guests against plain float64 references of their formulas, on made-up attention."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from oracle import plain_peaks
from seeless.vtr import LazyAttention, VTRConfig, get_strategy
from seeless.vtr.backbones import BACKBONES, OTHER, backbone_of

E = 1e-10
COPIES = ("llava", "llava_next", "internvl", "qwen2_vl", "qwen3_vl", "video_llava")
seeds = st.integers(0, 9999)
copies = st.sampled_from(COPIES)
queries = st.sampled_from(["last", "question"])
heads = st.sampled_from(["mean", "max"])


def made_up(seed, before, visual, after, count=3):
    """A causal map as a guest sees it, as lists `[heads][rows][columns]`, and the range of the visual tokens."""
    seq = before + visual + after
    scores = 2 * torch.randn(count, seq, seq, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    maps = scores.masked_fill(torch.ones(seq, seq).triu(1).bool(), -math.inf).softmax(-1)
    lazy = LazyAttention(lambda rows: maps[:, rows], count, seq, torch.float64, maps.device)
    return lazy, maps.tolist(), (before, before + visual)


def config_of(model_type, strategy, **options):
    return VTRConfig(strategy=strategy, **options).filled(backbone_of(model_type))


def over(values, how):
    return max(values) if how == "max" else sum(values) / len(values)


def rows_mean(maps, rows, columns, how, add=False):
    """Rows first, then heads."""
    return [over([sum(m[r][c] for r in rows) / (1 if add else len(rows)) for m in maps], how) for c in columns]


def close(got, want, tolerance=1e-6):
    assert len(got) == len(want)
    scale = max(1e-3, max(map(abs, want)))
    assert all(abs(a - b) <= tolerance * scale for a, b in zip(got.tolist(), want, strict=True))


def top(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


# FastV (methods.md 1.6) and PriorTR (2.1, 2.2).


@settings(max_examples=80, deadline=None)
@given(seed=seeds, model_type=copies, query=queries, head=heads, after=st.integers(1, 6), visual=st.integers(1, 9))
def test_fastv(seed, model_type, query, head, after, visual):
    lazy, maps, (s, e) = made_up(seed, 3, visual, after)
    seq, columns = e + after, range(s, e)
    config = config_of(model_type, "fastv", query_aggregation=query, head_aggregation=head)
    if query == "last" or (model_type.startswith("qwen") and after == 1):
        want = rows_mean(maps, [seq - 1], columns, head)
    elif model_type.startswith("qwen"):
        want = rows_mean(maps, range(e, seq - 1), columns, head)
    else:
        want = rows_mean(maps, range(e, seq), columns, head, add=True)
    close(get_strategy("fastv").compute_scores(lazy, (s, e), config), want)


def corrected(p, q):
    p, q = [x / (sum(p) + E) for x in p], [x / (sum(q) + E) for x in q]
    return [a * math.log((a + E) / (b + E)) for a, b in zip(p, q, strict=True)]


@settings(max_examples=120, deadline=None)
@given(seed=seeds, model_type=copies, query=queries, head=heads, after=st.integers(2, 6), visual=st.integers(1, 9))
def test_priortr(seed, model_type, query, head, after, visual):
    lazy, maps, (s, e) = made_up(seed, 3, visual, after)
    seq, columns = e + after, range(s, e)
    config = config_of(model_type, "priortr", query_aggregation=query, head_aggregation=head)
    null = e + 1 if model_type == "internvl" else e
    last = seq - 1 if model_type.startswith("qwen") else seq
    p = rows_mean(maps, range(e, last) if query == "question" else [seq - 1], columns, head)
    q = rows_mean(maps, [null], columns, head)
    got = get_strategy("priortr").compute_scores(lazy, (s, e), config)
    assert got.dtype is torch.float64
    close(got, corrected(p, q), 1e-4)  # computed in float32


def test_priortr_where_the_prompt_ends_early():
    """One row after the image: Q is P; none: refused; on InternVL the null token is the second row."""
    for model_type, after, error in (("llava", 1, False), ("qwen2_vl", 1, False), ("llava", 0, True)):
        lazy, _, span = made_up(1, 2, 5, after)
        config, strategy = config_of(model_type, "priortr"), get_strategy("priortr")
        if error:
            with pytest.raises(sl.InputError, match="no token follows the image"):
                strategy.compute_scores(lazy, span, config)
        else:
            assert strategy.compute_scores(lazy, span, config).abs().max() < 1e-6
    lazy, _, span = made_up(1, 2, 5, 1)
    with pytest.raises(sl.InputError, match="no token follows the image"):
        get_strategy("priortr").compute_scores(lazy, span, config_of("internvl", "priortr"))


def test_priortr_with_odd_attention():
    """Zeros and infinities: no nan, nothing beyond a million; in the dtype of the attention."""
    strategy = get_strategy("priortr")
    zeros = torch.zeros(4)
    assert torch.equal(strategy._correct(zeros, zeros), zeros)
    odd = strategy._correct(torch.tensor([torch.inf, 1.0, 0.0]), torch.tensor([0.0, 1.0, 2.0]))
    assert odd.isfinite().all() and odd.abs().max() <= 1e6
    assert strategy._correct(zeros.half(), zeros.half()).dtype is torch.float16


def test_priortr_on_a_prompt_that_sees_itself():
    config = config_of("paligemma", "priortr")
    for name in ("priortr", "priortr_2f"):
        with pytest.raises(sl.UnsupportedModel, match="blind to the question"):
            get_strategy(name).check(config)


@settings(max_examples=80, deadline=None)
@given(seed=seeds, model_type=st.sampled_from(["qwen3_vl", "video_llava", "llava"]), query=queries, head=heads)
def test_priortr_2f(seed, model_type, query, head):
    """Video-LLaVA reads Q one layer later than P; on Qwen Q is zero, as its mask makes it."""
    after = 4
    lazy, maps, (s, e) = made_up(seed, 3, 7, after)
    later, later_maps, _ = made_up(seed + 1, 3, 7, after)
    config = config_of(model_type, "priortr_2f", query_aggregation=query, head_aggregation=head)
    p = rows_mean(maps, range(e, e + after - 1) if query == "question" else [e + after - 1], range(s, e), head)
    q = rows_mean(later_maps if model_type == "video_llava" else maps, [e], range(s, e), head)
    q = [0.0] * 7 if model_type == "qwen3_vl" else q
    strategy = get_strategy("priortr_2f")
    close(strategy.compute_scores(lazy, (s, e), config, next_attention=later), corrected(p, q), 1e-4)
    given_prior = torch.rand(9, generator=torch.Generator().manual_seed(seed))
    got = strategy.compute_scores(lazy, (s, e), config, prior_attention=given_prior)
    close(got, corrected(p, given_prior[:7].double().tolist()), 1e-4)


def test_priortr_2f_needs_no_template():
    with pytest.raises(sl.UnsupportedModel, match="second prompt"):
        get_strategy("priortr_2f").check(VTRConfig(prior_mode="template"))


# The base class (14.3, 14.4).


@settings(max_examples=60, deadline=None)
@given(seed=seeds, query=st.sampled_from(["last", "question", "auto"]), head=heads, after=st.integers(1, 4))
def test_aggregate_attention(seed, query, head, after):
    from guests import MyStrategy

    lazy, maps, (s, e) = made_up(seed, 2, 5, after)
    config = VTRConfig(query_aggregation=query, head_aggregation=head)
    question = query == "question" and after > 1
    rows = range(e, e + after - 1) if question else [e + after - 1]
    close(MyStrategy()._aggregate_attention(lazy, (s, e), config)[:], rows_mean(maps, rows, range(s, e), head))


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 2.0, math.nan]), min_size=1, max_size=12),
    tokens=st.none() | st.integers(0, 14),
    threshold=st.none() | st.sampled_from([0.0, 0.5, 5.0]),
    ratio=st.none() | st.floats(0.01, 1),
    qwen=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_select_tokens(scores, tokens, threshold, ratio, qwen, dtype):
    """Count, then threshold, then ratio; ties to the lower place; nan counts as the largest."""
    from guests import MergingStrategy, MyStrategy

    config = VTRConfig(keep_tokens=tokens, score_threshold=threshold, keep_ratio=ratio)
    config = config.filled(backbone_of("qwen3_vl") if qwen else OTHER)
    given_scores = torch.tensor(scores, dtype=dtype)
    n, ranked = len(scores), [math.inf if x != x else x for x in given_scores.tolist()]
    if tokens is not None:
        want = top(ranked, min(tokens, n))
    elif threshold is not None:
        want = [i for i, x in enumerate(given_scores.tolist()) if x > threshold] or top(ranked, 1)
    else:
        share = (0.1111 if qwen else 0.25) if ratio is None else ratio
        want = top(ranked, max(int(qwen), int(n * share)))
    got = (MergingStrategy if qwen else MyStrategy)().select_tokens(given_scores, n, config)
    assert got.tolist() == want


def test_close_scores_in_double_are_told_apart():
    from guests import MyStrategy

    scores = torch.tensor([0.3, 0.3 + 1e-12], dtype=torch.float64)
    assert MyStrategy().select_tokens(scores, 2, VTRConfig(keep_tokens=1)).tolist() == [1]


# CLSE (3.1, 3.5).


def energy(image, cutoff, soft):
    """High-pass magnitude of one `h x w` image of numbers, by sums over all frequencies."""
    h, w = len(image), len(image[0])
    b = min(h // 2, w // 2) * cutoff
    out = [[0j] * w for _ in range(h)]
    for u in range(h):
        for v in range(w):
            f = sum(
                image[y][x] * complex(math.cos(t := -2 * math.pi * (u * y / h + v * x / w)), math.sin(t))
                for y in range(h)
                for x in range(w)
            )
            dy, dx = (u + h // 2) % h - h // 2, (v + w // 2) % w - w // 2
            f *= 1 - math.exp(-(dy * dy + dx * dx) / (2 * b * b + soft)) if b or soft else 1
            for y in range(h):
                for x in range(w):
                    out[y][x] += (
                        f * complex(math.cos(t := 2 * math.pi * (u * y / h + v * x / w)), math.sin(t)) / (h * w)
                    )
    return [abs(value) for line in out for value in line]


def evolution(before, now, grid, cutoff, temp, soft):
    """`before`, `now`: `[visual][dim]`."""
    t, h, w = grid

    def sigma(states):
        dims, result = len(states[0]), []
        for frame in range(t):
            own = states[frame * h * w : (frame + 1) * h * w]
            per = [energy([[own[y * w + x][d] for x in range(w)] for y in range(h)], cutoff, soft) for d in range(dims)]
            result += [sum(p[i] for p in per) / dims for i in range(h * w)]
        return result

    old, new = sigma(before), sigma(now)
    mean = sum(old) / len(old)
    g = [min(1, abs(b - a) / (mean + a + 1e-6)) for a, b in zip(old, new, strict=True)]
    centre = sum(g) / len(g)
    spread = math.sqrt(sum((x - centre) ** 2 for x in g) / (len(g) - 1)) + 1e-6
    return [1 / (1 + math.exp(-(x - centre) / spread / temp)) for x in g]


@settings(max_examples=25, deadline=None)
@given(seed=seeds, model_type=copies.filter(lambda n: n != "llava_next"), step=st.integers(0, 2), known=st.booleans())
def test_clse_scores(seed, model_type, step, known):
    video = model_type == "video_llava"
    grid = (2, 3, 2) if video else (1, 3, 4)
    visual = 12
    lazy, maps, (s, e) = made_up(seed, 2, visual, 3)
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(visual, 3, generator=generator, dtype=torch.float64)
    hidden = torch.randn(1, e + 3, 3, generator=generator, dtype=torch.float64)
    options = dict(zip(("clse_grid_t", "clse_grid_h", "clse_grid_w"), grid, strict=True))
    config = config_of(model_type, "clse", clse_cutoff_ratio=0.4, clse_temp=0.5, **options)
    context = {"step": step, "original_tokens": visual, "hidden_states": hidden, "score_layer": 0}
    if known:
        context |= {"grid_thw": grid, "z_ref": before}
    want = rows_mean(maps, [e + 2], range(s, e), "mean")
    if step == 0 and known:
        soft = 1e-6 if video else 0
        evo = evolution(before.tolist(), hidden[0, s:e].tolist(), grid, 0.4, 0.5, soft)
        want = [a * b for a, b in zip(want, evo, strict=True)]
    close(get_strategy("clse").compute_scores(lazy, (s, e), config, **context), want, 1e-4)


def clse_counts(model_type, original, **options):
    """Tokens of three cuts, given what the cuts before left."""
    lazy, _, _ = made_up(0, 1, original, 2, count=1)
    strategy, left, found = get_strategy("clse"), original, []
    config = config_of(model_type, "clse", **options)
    for step in range(3):
        lazy, _, span = made_up(step, 1, left, 2, count=1)
        context = {"step": step, "original_tokens": original, "score_layer": (0, 9, 18)[step]}
        scores = strategy.compute_scores(lazy, span, config, **context)
        left = len(strategy.select_tokens(scores, left, config))
        found.append(left)
    return found


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"keep_tokens": 192}, [330, 210, 62]),
        ({"keep_tokens": 128}, [220, 140, 41]),
        ({"keep_tokens": 64}, [110, 70, 20]),
        ({"retain_ratio": 0.334}, [330, 210, 62]),
        ({"retain_ratio": 0.112}, [110, 70, 20]),
        ({"keep_tokens": 100}, [172, 109, 32]),
        ({"retain_ratio": 0.2}, [int(1.72 * 115), int(1.09 * 115), int(0.32 * 115)]),
        ({}, [330, 210, 62]),
        ({"keep_ratio": 0.5}, [288, 144, 72]),
        ({"keep_tokens": 500}, [576, 545, 160]),
    ],
    ids=str,
)
def test_clse_budgets_on_llava(options, want):
    assert clse_counts("llava", 576, **options) == want


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"retain_ratio": 0.334}, (0.57, 0.36, 0.098)),
        ({"retain_ratio": 0.223}, (0.38, 0.24, 0.066)),
        ({"keep_tokens": 64}, (0.19, 0.12, 0.034)),
        ({"keep_tokens": 192}, (0.57, 0.36, 0.098)),
        ({"retain_ratio": 0.25}, (0.25 * 1.72, 0.25 * 1.09, 0.25 * 0.32)),
    ],
    ids=str,
)
def test_clse_budgets_on_qwen(model_type, options, shares):
    """Shares of the original tokens, floored, at least one."""
    for original in (1, 7, 333):
        assert clse_counts(model_type, original, **options) == [max(1, int(original * share)) for share in shares]
    assert clse_counts(model_type, 90, keep_tokens=40) == [40, 40, 40]  # no preset: the ordinary budgets
    assert clse_counts(model_type, 90, keep_ratio=0.5) == [45, 22, 11]


def test_clse_schedule():
    strategy = get_strategy("clse")
    for depth, layers in {32: [1, 11, 21], 28: [1, 10, 19], 36: [1, 13, 24], 6: [1, 2, 4], 2: [1, 1, 1]}.items():
        for model_type in ("llava", "qwen2_vl", "qwen3_vl", "internvl"):
            assert strategy.schedule(config_of(model_type, "clse", prune_layer=5), depth) == layers
        assert strategy.schedule(config_of("video_llava", "clse"), depth) == [3]
        assert strategy.schedule(config_of("llava", "clse", prune_layer=[4, 2]), depth) == [4, 2]
    for model_type, layers in (("llava", [0]), ("qwen2_vl", [0]), ("video_llava", [2])):
        assert strategy.references(config_of(model_type, "clse")) == layers
        assert strategy.references(config_of(model_type, "clse", ref_layers=[1, 3])) == [1, 3]
    with pytest.raises(sl.UnsupportedModel, match="LLaVA-NeXT"):
        strategy.check(config_of("llava_next", "clse"))
    lazy, _, span = made_up(0, 1, 5, 2)
    config = config_of("llava", "clse", keep_tokens=64)
    with pytest.raises(sl.BudgetError, match="presets are for 3 cuts"):
        strategy.compute_scores(lazy, span, config, step=3, original_tokens=9, score_layer=0)


def test_clse_on_lists_out_of_order():
    """On LLaVA the cuts count by layer, on Qwen as they are given."""
    lazy, _, span = made_up(0, 1, 50, 2)
    for model_type, count in (("llava", 18), ("qwen2_vl", int(50 * 0.36))):
        config = config_of(model_type, "clse", prune_layer=[11, 1, 21], **{"keep_tokens": 64})
        strategy = get_strategy("clse")
        # the cut before layer 1 is the second of the list
        scores = strategy.compute_scores(lazy, span, config, step=1, original_tokens=50, score_layer=0)
        kept = len(strategy.select_tokens(scores, 50, config))
        assert kept == (50 if model_type == "llava" else int(50 * 0.12)), count


@torch.no_grad()
def test_clse_on_a_video_of_eight_class_tokens():
    """Stock Video-LLaVA gives 8 x 257 tokens, which fill no 16 x 16; as eight columns of 37 they may be told to."""
    lazy, _, (s, e) = made_up(3, 2, 8 * 37, 2, count=1)
    hidden = torch.randn(1, e + 2, 4, generator=torch.Generator().manual_seed(1))
    context = {"step": 0, "original_tokens": e - s, "hidden_states": hidden, "z_ref": hidden[0, s:e].roll(1, 0)}
    strategy = get_strategy("clse")
    plain = strategy.compute_scores(lazy, (s, e), config_of("video_llava", "clse"), **context)
    options = {"clse_grid_t": 8, "clse_grid_h": 37, "clse_grid_w": 1}
    thin = strategy.compute_scores(lazy, (s, e), config_of("video_llava", "clse", **options), **context)
    assert torch.equal(plain, lazy[0, :, -1, s:e].mean(0)) and thin.isfinite().all()
    evo = evolution(context["z_ref"].tolist(), hidden[0, s:e].tolist(), (8, 37, 1), 0.1, 0.1, 1e-6)
    close(thin, [a * b for a, b in zip(plain.tolist(), evo, strict=True)], 1e-3)


# SparseVLM (7.1 to 7.3, 7.7).


def sparse_context(seed, visual, after):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(1, 2 + visual + after, 6, generator=generator, dtype=torch.float64)
    context = {"image_token_range": (2, 2 + visual)}
    get_strategy("sparsevlm").prepare(states, VTRConfig(), context)
    del context["image_token_range"]
    return states, context


def plain_raters(states, s, e):
    visual, text = states[0, s:e].tolist(), states[0, e:].tolist()
    total = [0.0] * len(text)
    for v in visual:
        powers = [math.exp(sum(a * b for a, b in zip(v, t, strict=True))) for t in text]
        total = [x + p / sum(powers) / len(visual) for x, p in zip(total, powers, strict=True)]
    return [t for t, m in enumerate(total) if m > sum(total) / len(total)] or list(range(len(text)))


@settings(max_examples=60, deadline=None)
@given(seed=seeds, visual=st.integers(1, 12), after=st.integers(1, 6))
def test_sparsevlm_scores(seed, visual, after):
    lazy, maps, (s, e) = made_up(seed, 2, visual, after)
    states, context = sparse_context(seed, visual, after)
    raters = plain_raters(states, s, e)
    assert context["important_text_token_idx"][1].tolist() == raters
    got = get_strategy("sparsevlm").compute_scores(lazy, (s, e), VTRConfig(), **context)
    close(got, rows_mean(maps, [e + r for r in raters], range(s, e), "mean"))


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 400), ratio=st.floats(0.01, 1), tokens=st.none() | st.integers(0, 400), merge=st.booleans())
def test_sparsevlm_counts(n, ratio, tokens, merge):
    """With a ratio kept and merged ones are the budget, after three rounds; with a count the merged come on top."""
    config = config_of("qwen3_vl", "sparsevlm", keep_ratio=ratio, keep_tokens=tokens, token_merge=merge)
    total = min(tokens, n) if tokens is not None else max(1, int(n * ratio))
    kept = total
    if merge and tokens is None:
        for _ in range(3):
            p = n - kept
            count = min(p, math.floor(0.3 * p) + 1)
            kept = max(1, total - (count // 10 + 1 if count else 0))
    assert len(get_strategy("sparsevlm").select_tokens(torch.rand(n), n, config)) == kept


@settings(max_examples=40, deadline=None)
@given(seed=seeds, visual=st.integers(4, 60), keep=st.integers(1, 20), after=st.integers(1, 3))
def test_sparsevlm_merge(seed, visual, keep, after):
    s, e = 2, 2 + visual
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(1, e + after, 5, generator=generator)
    scores = torch.rand(visual, generator=generator)
    kept = top(scores.tolist(), min(keep, visual))
    dropped = [i for i in range(visual) if i not in kept]
    index = torch.tensor(kept)
    pruned = torch.cat([hidden[:, :s], hidden[:, s + index], hidden[:, e:]], 1)
    config, at = config_of("qwen3_vl", "sparsevlm", token_merge=True), s + len(kept)
    strategy = get_strategy("sparsevlm")
    torch.manual_seed(seed)
    got = strategy.post_prune(
        hidden, pruned, index, (s, at), config, 0, pruned_token_scores=scores[torch.tensor(dropped, dtype=torch.long)]
    )
    if not dropped:
        assert torch.equal(got, pruned)
        return
    count = min(len(dropped), math.floor(0.3 * len(dropped)) + 1)
    again = sorted(dropped, key=lambda i: (-float(scores[i]), i))[:count]
    torch.manual_seed(seed)
    noise = torch.rand(count).tolist()
    values = hidden[0, s:e].double().tolist()
    clusters = plain_peaks([values[i] for i in again], count // 10 + 1, noise)
    assert got.shape[1] == pruned.shape[1] + len(clusters)
    assert torch.equal(torch.cat([got[:, :at], got[:, at + len(clusters) :]], 1), pruned)
    for row, (_, members) in zip(got[0, at : at + len(clusters)], clusters, strict=True):
        mean = [sum(values[again[m]][d] for m in members) / (len(members) + 1e-6) for d in range(5)]
        close(row, mean, 1e-4)
    off = config_of("qwen3_vl", "sparsevlm")
    assert strategy.post_prune(hidden, pruned, index, (s, at), off, 0, pruned_token_scores=scores[:0]) is pruned


# VisPruner (6.5).


def plain_vispruner(scores, features, budget, ratio):
    visual = len(scores)
    count = max(1, min(budget, visual))
    important = min(count, max(1, int(count * ratio)))
    order = sorted(range(visual), key=lambda i: (-scores[i], i))
    keep, rest, wanted = order[:important], order[important:], count - important
    unit = [[x / (math.sqrt(sum(y * y for y in f)) + 1e-8) for x in f] for f in features]
    while wanted and len(rest) > wanted:
        a, b = rest[0::2], rest[1::2]
        leave = min(8, len(rest) - wanted, len(a))
        alike = {i: max(sum(x * y for x, y in zip(unit[i], unit[k], strict=True)) for k in b) for i in a}
        rest = sorted(sorted(a, key=lambda i: -alike[i])[leave:], key=lambda i: alike[i]) + b
    return sorted(keep), sorted(rest if wanted else [])


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds, visual=st.integers(1, 60), budget=st.integers(1, 40), ratio=st.sampled_from([0.1, 0.35, 0.5, 0.9, 1.0])
)
def test_vispruner(seed, visual, budget, ratio):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(visual, generator=generator)
    features = torch.randn(visual, 6, generator=generator)
    config = config_of("qwen3_vl", "vispruner", keep_tokens=budget, important_ratio=ratio)
    got = get_strategy("vispruner").compute_scores(None, (0, visual), config, scores, features)
    important, rest = plain_vispruner(scores.tolist(), features.double().tolist(), budget, ratio)
    assert (got == 2).nonzero()[:, 0].tolist() == important and (got == 1).nonzero()[:, 0].tolist() == rest
    assert len(important) + len(rest) == min(budget, visual)


@torch.no_grad()
def test_vispruner_reduces_every_image_by_itself_before_the_first_layer(tiny):
    from tinies import TINIES, make_inputs

    own = next(own for own in TINIES if own.name == "qwen3_vl")
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[3, "image:0", 4, "image:1", 6], [2, "image:3", 3]])
    with sl.apply(model, VTRConfig(strategy="vispruner", keep_tokens=7, prune_layer=[2, 4])) as run:
        model(**inputs)
    assert [(stage.layer, stage.n_after) for stage in run.report.stages] == [(0, [14, 7])]
    with sl.apply(model, sl.VisPruner(keep=7, as_released=False)) as native:
        model(**inputs)
    for a, b in zip(run.report.stages[0].kept, native.report.stages[0].kept, strict=True):
        assert len(set(a.tolist()) & set(b.tolist())) >= 0.6 * len(a)  # other features, the same attention


def test_every_backbone_is_tried():
    assert {BACKBONES[name].name for name in COPIES} | {"paligemma"} == {b.name for b in BACKBONES.values()}
